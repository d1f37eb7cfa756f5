package netx

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnThread: what runs on a thread of its own has never the first one, which would keep what was done to it.
func TestOnThread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the first thread has its turns
	want := errors.New("what fn says")
	seen := map[int]bool{}
	for range 500 {
		var tid int
		if err := OnThread(func() error { tid = unix.Gettid(); return want }); !errors.Is(err, want) {
			t.Fatal(err)
		}
		if tid == os.Getpid() {
			t.Fatal("fn ran on the first thread of the process")
		}
		seen[tid] = true
	}
	if len(seen) < 2 {
		t.Error("threads are used again")
	}
}
