package wait

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		name   string
		true   time.Duration // when it comes true
		want   bool
		passed time.Duration
	}{
		{"at once", 0, true, 0},
		{"later", 3 * step, true, 3 * step},
		{"between two looks", step + step/2, true, 2 * step},
		{"never", time.Hour, false, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				got := within(time.Second, func() bool { return time.Since(start) >= c.true })
				if passed := time.Since(start); got != c.want || passed != c.passed {
					t.Errorf("%v after %v, want %v after %v", got, passed, c.want, c.passed)
				}
			})
		})
	}
}

// failing is a test that is expected to fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) { f.said = fmt.Sprintf(format, args...) }

func TestUntilSaysWhatNeverCameTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{TB: t}
		Until(f, time.Second, "the sun rises", func() bool { return false }, func() string { return "it is dark" })
		if want := "not true after 1s: the sun rises; it is dark"; f.said != want {
			t.Errorf("said %q, want %q", f.said, want)
		}
		Until(t, time.Second, "now", func() bool { return true }, nil)
	})
}
