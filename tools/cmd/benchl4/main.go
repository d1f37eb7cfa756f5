// Command benchl4 measures what a tunnel between two node proxies costs: CPU time of both per byte, round trip and new stream,
// and memory per idle connection. The peer is the same tunnel on golang.org/x/net/http2, in the same run: every ratio is to
// that (memory: to a fixed size), so that it means the same on any machine; the absolute figures are for reading only.
//
// It starts itself again for each proxy, so that each one's CPU time and memory are its own, and for the server behind them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// options of a run.
type options struct {
	reps   int // repetitions, of which the median counts
	bulk   int // MiB per repetition, half of them each way
	trips  int // round trips per repetition
	setups int // new streams per repetition
	idle   int // idle connections

	only     string // scenario to run; "" is all
	profiles string // directory for CPU profiles of the proxies; "" is none
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := runChild(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "benchl4", os.Args[2:], err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.reps, "reps", 7, "repetitions, interleaved with the peer's; their median counts")
	flag.IntVar(&o.bulk, "bulk", 512, "MiB moved in each bulk repetition")
	flag.IntVar(&o.trips, "trips", 10000, "round trips in each repetition")
	flag.IntVar(&o.setups, "setups", 2000, "new streams in each repetition")
	flag.IntVar(&o.idle, "idle", 8000, "idle connections")
	flag.StringVar(&o.only, "only", "", "run one scenario")
	flag.StringVar(&o.profiles, "profiles", "", "write CPU profiles of the proxies into this directory")
	quick := flag.Bool("quick", false, "a run of seconds, to see that it works; its ratios say little")
	flag.Parse()
	if *quick {
		o.reps, o.bulk, o.trips, o.setups, o.idle = 3, 64, 2000, 300, 500
	}
	bench.Main("benchl4", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// scenario is one row of the table.
type scenario struct {
	name   string
	target float64 // of the ratio to the peer; 0 is for reading only
	units  func(options) int
	load   func(ctx context.Context, proxy string, units int) error
	print  func(nanoseconds float64) string // per unit
}

func scenarios() []scenario {
	mib := func(o options) int { return o.bulk << 20 }
	perGB := func(ns float64) string { return fmt.Sprintf("%.2f s/GB", ns) } // as a unit is a byte
	micro := func(ns float64) string { return fmt.Sprintf("%.1f µs", ns/1e3) }
	trips := func(o options) int { return o.trips }
	streams := func(o options) int { return o.setups }
	return []scenario{
		{"hbone-bulk-1", 0.85, mib, bulk(1), perGB},
		{"hbone-bulk-64", 1.0, mib, bulk(64), perGB},
		{"hbone-rtt-1", 0.8, trips, roundTrips(1), micro},
		{"hbone-rtt-64", 0, trips, roundTrips(64), micro},
		{"hbone-stream-setup", 0.65, streams, setups(1), micro},
		{"hbone-stream-setup-16", 0, streams, setups(16), micro},
	}
}

// idleTarget is how much memory an idle connection may cost each proxy.
const idleTarget = 12 << 10

// run prints the report, and returns whether all targets are met.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	start := time.Now()
	bed, err := newTestbed(ctx, o.profiles)
	if err != nil {
		return false, err
	}
	defer bed.close()
	ours, peer := bed.tunnels[isthmus], bed.tunnels[xnet]
	ok := true
	var ratios []func()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CPU of both proxies\tisthmus\tx/net/http2\tratio\tspread")
	for _, s := range scenarios() {
		if o.only != "" && o.only != s.name {
			continue
		}
		units := s.units(o)
		a, b, err := interleave(ctx, s, units, o.reps, ours, peer)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.name, err)
		}
		ratio := median(a) / median(b)
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f–%.2f\n", s.name, s.print(median(a)/float64(units)), s.print(median(b)/float64(units)), ratio,
			slices.Min(a)/median(b), slices.Max(a)/median(b))
		if s.target > 0 {
			ratios = append(ratios, func() { ok = bench.Report(out, s.name, ratio, s.target) && ok })
		}
	}
	if o.only == "" || o.only == "l4-idle-memory" {
		m, err := measureIdle(ctx, ours, o.idle)
		if err != nil {
			return false, fmt.Errorf("l4-idle-memory: %w", err)
		}
		fmt.Fprintf(w, "memory per idle connection of %d\tclient %.1f KiB\tserver %.1f KiB\t\t\n", o.idle, m.client/1024, m.server/1024)
		ratios = append(ratios, func() { ok = bench.Report(out, "l4-idle-memory", max(m.client, m.server)/idleTarget, 1) && ok })
	}
	fmt.Fprintf(w, "whole run\t%v\t\t\t\n", time.Since(start).Round(time.Millisecond))
	if err := w.Flush(); err != nil {
		return false, err
	}
	for _, print := range ratios {
		print()
	}
	return ok, nil
}

// interleave runs a scenario through both tunnels in turn and returns the CPU time of each repetition.
func interleave(ctx context.Context, s scenario, units, reps int, ours, peer *tunnel) (a, b []float64, err error) {
	for _, t := range []*tunnel{ours, peer} { // connections, pools and stacks grow to their size
		if err := s.load(ctx, t.addr(), max(units/10, 1)); err != nil {
			return nil, nil, err
		}
	}
	for range reps {
		for _, side := range []struct {
			t   *tunnel
			out *[]float64
		}{{ours, &a}, {peer, &b}} {
			before, err := side.t.cpu()
			if err != nil {
				return nil, nil, err
			}
			if err := s.load(ctx, side.t.addr(), units); err != nil {
				return nil, nil, err
			}
			after, err := side.t.cpu()
			if err != nil {
				return nil, nil, err
			}
			*side.out = append(*side.out, float64(after-before))
		}
	}
	return a, b, nil
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}
