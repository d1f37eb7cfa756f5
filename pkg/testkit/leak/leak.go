// Package leak finds what tests leave behind.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package and returns the exit code. When they have passed, it fails if something is left: a
// goroutine, or a descriptor of a socket or a network namespace. Use it as TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }
func Main(m interface{ Run() int }) int {
	before := len(descriptors())
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	const own = 2 // the poller's
	after := descriptors()
	for deadline := time.Now().Add(5 * time.Second); len(after) > before+own && time.Now().Before(deadline); after = descriptors() {
		runtime.GC()                      // package net keeps the pipes of its splices until then
		time.Sleep(10 * time.Millisecond) // the applications of the tests close theirs when they see the end
	}
	if len(after) > before+own {
		fmt.Fprintf(os.Stderr, "descriptors: %d before, %d after: %v\n", before, len(after), after)
		code = 1
	}
	return code
}

// descriptors says what is open.
func descriptors() []string {
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
