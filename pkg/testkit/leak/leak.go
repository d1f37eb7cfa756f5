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
func Main(m Tests) int {
	before := len(descriptors())
	code := Goroutines(m)
	if code != 0 {
		return code
	}
	const own = 2 // the poller's
	after := descriptors()
	for deadline := time.Now().Add(patience); len(after) > before+own && time.Now().Before(deadline); after = descriptors() {
		runtime.GC()                      // package net keeps the pipes of its splices until then
		time.Sleep(10 * time.Millisecond) // the applications of the tests close theirs when they see the end
	}
	if len(after) > before+own {
		fmt.Fprintf(os.Stderr, "descriptors: %d before, %d after: %v\n", before, len(after), after)
		code = 1
	}
	return code
}

// Tests are those of a package: *testing.M.
type Tests interface{ Run() int }

// patience is for what is about to end, on a machine that has much else to do: goleak's own is half a second.
const patience = 20 * time.Second

// Goroutines runs the tests of a package and returns the exit code. When they have passed, it fails if a goroutine is left.
func Goroutines(m Tests, ignore ...goleak.Option) int {
	code := m.Run()
	if code != 0 {
		return code
	}
	err := goleak.Find(ignore...)
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		err = goleak.Find(ignore...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
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
