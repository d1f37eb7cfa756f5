// Package wait lets a test wait for what another goroutine or process does.
package wait

import (
	"fmt"
	"testing"
	"time"
)

// step is the time between two looks.
const step = 5 * time.Millisecond

// Until returns once ok does, or ends the test after limit, saying what never came true. It may be called on the test's
// goroutine only. More is asked then for what else there is to say; it may be nil.
func Until(t testing.TB, limit time.Duration, what string, ok func() bool, more func() string) {
	t.Helper()
	if within(limit, ok) {
		return
	}
	if more != nil {
		what = fmt.Sprintf("%s; %s", what, more())
	}
	t.Fatalf("not true after %v: %s", limit, what)
}

// within tells whether ok came true in time; it is asked at least twice.
func within(limit time.Duration, ok func() bool) bool {
	if ok() {
		return true
	}
	tick := time.NewTicker(step)
	defer tick.Stop()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		select {
		case <-tick.C:
			if ok() {
				return true
			}
		case <-deadline.C:
			return ok()
		}
	}
}
