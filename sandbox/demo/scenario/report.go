// Package scenario is what `make demo` does and measures: each check is one claim of the product, asked from outside.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Report prints one line per check.
type Report struct {
	out            io.Writer
	begin          time.Time
	checks, failed int
}

// NewReport prints to out.
func NewReport(out io.Writer) *Report { return &Report{out: out, begin: time.Now()} }

// Section announces what follows.
func (r *Report) Section(title string) { fmt.Fprintf(r.out, "\n%s\n", title) }

// Detail prints what backs the last check up: a log line, a command.
func (r *Report) Detail(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(r.out, "    %s\n", line)
	}
}

// Check runs one check. It returns what was measured, or what was expected and what was seen instead.
func (r *Report) Check(ctx context.Context, check func(context.Context) (string, error)) bool {
	r.checks++
	measured, err := check(ctx)
	if err == nil && measured == "" {
		err = errors.New("the check measured nothing")
	}
	if err != nil {
		r.failed++
		fmt.Fprintf(r.out, "  ✘ %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return false
	}
	fmt.Fprintf(r.out, "  ✔ %s\n", measured)
	return true
}

// Summary prints the last line and tells whether all checks passed; a run without checks has not.
func (r *Report) Summary() bool {
	fmt.Fprintf(r.out, "\ndemo: %d checks, %d failed, %.0f s\n", r.checks, r.failed, time.Since(r.begin).Seconds())
	return r.failed == 0 && r.checks > 0
}

// expected is the error of a check that saw something else.
func expected(what, seen string, args ...any) error {
	return fmt.Errorf("expected %s; saw %s", what, fmt.Sprintf(seen, args...))
}
