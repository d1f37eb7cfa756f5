package netx

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread runs fn on a thread that ends with it, so that nothing that fn does to its thread (namespaces, mounts, capabilities) can reach
// another goroutine. It is never the process's first thread: that one does not end before the process, and what /proc says of the process
// (its root directory, its namespaces) is what that thread has.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked after fn: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			done <- fn()
			return
		}
		// As long as this goroutine holds the first thread, others get another one.
		err := OnThread(fn)
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
