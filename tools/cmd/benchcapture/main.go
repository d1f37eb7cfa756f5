// Command benchcapture measures what redirection adds to the setting up of a connection: CPU time of both ends and of the kernel
// between them for a connection, one byte each way and its end. The peer is the same without redirection, in the same run and in turn;
// nft is there for reading.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// What a connection may cost at most, as a multiple of one without redirection.
const (
	targetOut = 1.10
	targetIn  = 1.15
)

func main() {
	reps := flag.Int("reps", 15, "repetitions, interleaved; their median counts")
	conns := flag.Int("conns", 2000, "connections in each repetition")
	quick := flag.Bool("quick", false, "a run of a second, to see that it works; its ratios say little")
	flag.Parse()
	if *quick {
		*reps, *conns = 3, 200
	}
	bench.Main("benchcapture", func(_ context.Context, out io.Writer) (bool, error) { return run(*reps, *conns, out) }) //nolint:contextcheck // the trial of the kernel has a bound of its own
}

// run prints the report, and returns whether all targets are met.
func run(reps, conns int, out io.Writer) (bool, error) {
	beds, err := newBeds()
	if err != nil {
		return false, err
	}
	defer beds.close()
	ok := true
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CPU per connection\tdirect\tsklookup\tratio\tspread\tnft\tratio")
	var ratios []func()
	for _, way := range []struct {
		name   string
		target float64
		dial   func(*bed) end
	}{
		{"capture-sklookup-out", targetOut, (*bed).outbound}, {"capture-sklookup-in", targetIn, (*bed).inbound},
	} {
		costs := map[string][]float64{}
		for rep := range reps + 1 {
			for _, b := range beds.all {
				cost, err := measure(way.dial(b), conns)
				if err != nil {
					return false, fmt.Errorf("%s %s: %w", way.name, b.name, err)
				}
				if rep > 0 { // the first warms up
					costs[b.name] = append(costs[b.name], cost)
				}
			}
		}
		plain, ours, nft := median(costs[direct]), median(costs[sklookup]), median(costs[nftables])
		fmt.Fprintf(w, "%s\t%.1f µs\t%.1f µs\t%.2f\t%.2f–%.2f\t%.1f µs\t%.2f\n", way.name, plain/1e3, ours/1e3, ours/plain,
			slices.Min(costs[sklookup])/plain, slices.Max(costs[sklookup])/plain, nft/1e3, nft/plain)
		ratios = append(ratios, func() { ok = bench.Report(out, way.name, ours/plain, way.target) && ok })
	}
	if err := w.Flush(); err != nil {
		return false, err
	}
	for _, print := range ratios {
		print()
	}
	return ok, nil
}

// measure returns the CPU time of a connection, in nanoseconds.
func measure(e end, conns int) (float64, error) {
	before, err := cpu()
	if err != nil {
		return 0, err
	}
	if err := e.load(conns); err != nil {
		return 0, err
	}
	after, err := cpu()
	return float64(after-before) / float64(conns), err
}

func cpu() (int64, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now)
	return now.Nano(), err
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}
