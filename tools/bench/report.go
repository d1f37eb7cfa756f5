package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"
)

// Main runs a benchmark that prints its report to out and returns whether all targets are met, and ends the process with 1 if they
// are not.
func Main(name string, run func(ctx context.Context, out io.Writer) (bool, error)) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	ok, err := run(ctx, os.Stdout)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
	}
	if !ok {
		os.Exit(1)
	}
}

// Report prints one target in the form that gates read, `ratio NAME VALUE <= TARGET ok|short`, and returns whether it is met.
func Report(out io.Writer, name string, value, target float64) bool {
	verdict := "ok"
	if !(value <= target) {
		verdict = "short"
	}
	fmt.Fprintf(out, "ratio %s %.2f <= %g %s\n", name, value, target, verdict)
	return verdict == "ok"
}

// Percentile returns the p-th percentile of the durations, of which there must be one at least, in whole microseconds.
func Percentile(d []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Round(time.Microsecond)
}
