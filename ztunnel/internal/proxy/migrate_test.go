package proxy

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

func TestMigrateQueuedWithProcReadOnly(t *testing.T) {
	path := podtest.NewPair(t).Client
	ns := podtest.Open(t, path, 0)
	read := func() string {
		var out []byte
		err := ns.Do(func() (err error) { out, err = os.ReadFile("/proc/" + migrateSetting); return err })
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if got := read(); got != "0\n" {
		t.Fatalf("a fresh namespace has %q", got)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its mounts
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""); err != nil {
				return err
			}
			if err := unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				return err
			}
			pod, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(pod)
			if err := unix.Setns(pod, unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := os.WriteFile("/proc/"+migrateSetting, []byte("1"), 0o644); !errors.Is(err, syscall.EROFS) {
				return fmt.Errorf("the test is void: %w", err)
			}
			return migrateQueued()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "1\n" {
		t.Errorf("the setting is %q", got)
	}
}
