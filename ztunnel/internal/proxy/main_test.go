package proxy

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain checks that nothing is left when all proxies of the tests have ended: no goroutine, and no descriptor of a
// socket or a network namespace.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		after := descriptors()
		for deadline := time.Now().Add(5 * time.Second); after > before+2 && time.Now().Before(deadline); after = descriptors() {
			runtime.GC()                      // package net keeps the pipes of its splices until then
			time.Sleep(10 * time.Millisecond) // the applications of the tests close theirs when they see the end
		}
		if after > before+2 { // the poller's own
			fmt.Fprintf(os.Stderr, "descriptors: %d before, %d after: %v\n", before, after, targets())
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// targets says what the descriptors are.
func targets() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			out = append(out, target)
		}
	}
	return out
}
