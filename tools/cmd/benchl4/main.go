// Command benchl4 measures what a tunnel between two node proxies costs: CPU time of both per byte, round trip and new stream,
// and memory per idle connection. The peer is the same tunnel on golang.org/x/net/http2, in the same run: every ratio is to
// that (memory: to a fixed size), so that it means the same on any machine; the absolute figures are for reading only.
//
// It starts itself again for each proxy, so that each one's CPU time and memory are its own, and for the server behind them.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/bench"
	"github.com/isthmus-mesh/isthmus/tools/internal/upgradebed"
)

// options of a run.
type options struct {
	reps   int // repetitions, of which the median counts
	bulk   int // MiB per repetition, half of them each way
	trips  int // round trips per repetition
	setups int // new streams per repetition
	idle   int // idle connections
	open   int // idle connections while proxies are replaced
	calls  int // streaming calls then

	only     string // scenario to run; "" is all
	haproxy  string // binary
	profiles string // directory for CPU profiles of the proxies; "" is none
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == upgradebed.ChildArg {
		if err := upgradebed.RunChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "benchl4", upgradebed.ChildArg, err)
			os.Exit(1)
		}
		return
	}
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
	flag.IntVar(&o.open, "open", 1000, "idle connections while proxies are replaced")
	flag.IntVar(&o.calls, "calls", 50, "streaming gRPC calls while proxies are replaced")
	flag.StringVar(&o.only, "only", "", "run one scenario")
	flag.StringVar(&o.profiles, "profiles", "", "write CPU profiles of the proxies into this directory")
	flag.StringVar(&o.haproxy, "haproxy", "haproxy", "HAProxy, as a peer")
	quick := flag.Bool("quick", false, "a run of seconds, to see that it works; its ratios say little")
	flag.Parse()
	if *quick {
		o.reps, o.bulk, o.trips, o.setups, o.idle, o.open, o.calls = 3, 64, 2000, 300, 500, 100, 5
	}
	bench.Main("benchl4", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// scenario is one row of the table.
type scenario struct {
	name    string
	targets []target // what the ratio is to; without one the peer is x/net
	units   func(options) int
	load    func(ctx context.Context, dial dialer, units int) error
	print   func(nanoseconds float64) string // per unit
}

// target is the most that we may cost, as a multiple of what a peer does.
type target struct {
	peer  string
	ratio float64 // 0 is for reading only
	name  string  // of the ratio; "" is the scenario's
}

func scenarios() []scenario {
	mib := func(o options) int { return o.bulk << 20 }
	perGB := func(ns float64) string { return fmt.Sprintf("%.2f s/GB", ns) } // as a unit is a byte
	micro := func(ns float64) string { return fmt.Sprintf("%.1f µs", ns/1e3) }
	trips := func(o options) int { return o.trips }
	streams := func(o options) int { return o.setups }
	limits := func(name string) []target {
		return []target{{direct, 1.35, name}, {xnet, 0.65, name + "-xnet"}, {standard, 0, ""}}
	}
	return []scenario{
		{"hbone-bulk-1", limits("hbone-bulk-1"), mib, bulk(1), perGB},
		{"hbone-bulk-64", limits("hbone-bulk-64"), mib, bulk(64), perGB},
		{"hbone-rtt-1", []target{{xnet, 0.8, ""}, {standard, 0, ""}}, trips, roundTrips(1), micro},
		{"hbone-rtt-64", []target{{haproxy, 1.0, ""}, {xnet, 0, ""}, {standard, 0, ""}}, trips, roundTrips(64), micro},
		{"hbone-stream-setup", []target{{splice, 1.2, ""}, {xnet, 0.65, "hbone-stream-setup-xnet"}}, streams, setups(1), micro},
		{"hbone-stream-setup-16", []target{{splice, 0, ""}, {xnet, 0, ""}}, streams, setups(16), micro},
	}
}

// idleTarget is how much memory an idle connection may cost each proxy; awakeTarget how much more, as a multiple, before it sleeps: no test
// under the race detector would see that its goroutine's stack has doubled.
const (
	idleTarget  = 7 << 10
	awakeTarget = 1.2
)

// run prints the report, and returns whether all targets are met.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	start := time.Now()
	bed, err := newTestbed(ctx, o)
	if err != nil {
		return false, err
	}
	defer bed.close()
	ok := true
	var ratios []func()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CPU of both proxies\tisthmus\tpeer\t\tratio\tspread")
	for _, s := range scenarios() {
		if o.only != "" && o.only != s.name {
			continue
		}
		units := s.units(o)
		costs, err := interleave(ctx, s, units, o.reps, bed.of(s))
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.name, err)
		}
		ours := costs[0]
		for i, t := range s.targets {
			theirs := costs[i+1]
			ratio := median(ours) / median(theirs)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f\t%.2f–%.2f\n", s.name, s.print(median(ours)/float64(units)), t.peer,
				s.print(median(theirs)/float64(units)), ratio, slices.Min(ours)/median(theirs), slices.Max(ours)/median(theirs))
			if t.ratio > 0 {
				ratios = append(ratios, func() { ok = bench.Report(out, cmp.Or(t.name, s.name), ratio, t.ratio) && ok })
			}
		}
	}
	if o.only == "" || o.only == "l4-idle-memory" {
		for _, state := range []struct {
			kind, what, name string
			target           float64
		}{{awake, "awake", "l4-idle-memory-awake", awakeTarget}, {isthmus, "asleep", "l4-idle-memory", 1}} {
			m, err := measureIdle(ctx, bed.tunnels[state.kind], o.idle)
			if err != nil {
				return false, fmt.Errorf("%s: %w", state.name, err)
			}
			fmt.Fprintf(w, "memory per idle connection of %d, %s\tclient %.1f KiB\tserver %.1f KiB\t\t\t\n", o.idle, state.what, m.client/1024, m.server/1024)
			ratios = append(ratios, func() { ok = bench.Report(out, state.name, max(m.client, m.server)/idleTarget, state.target) && ok })
		}
	}
	if o.only == "" || o.only == neighbours {
		if err := fairness(ctx, bed, o, w); err != nil {
			return false, fmt.Errorf("%s: %w", neighbours, err)
		}
	}
	if o.only == "" || o.only == upgradeDropped {
		r, err := upgrade(ctx, o, w)
		if err != nil {
			return false, fmt.Errorf("%s: %w", upgradeDropped, err)
		}
		ratios = append(ratios, func() { ok = bench.Report(out, upgradeDropped, float64(r.Dropped), 0) && ok })
	}
	fmt.Fprintf(w, "whole run\t%v\t\t\t\t\n", time.Since(start).Round(time.Millisecond))
	if err := w.Flush(); err != nil {
		return false, err
	}
	for _, print := range ratios {
		print()
	}
	return ok, nil
}

// interleave runs a scenario through all tunnels in turn and returns the CPU time of each repetition of each.
func interleave(ctx context.Context, s scenario, units, reps int, tunnels []*tunnel) ([][]float64, error) {
	for _, t := range tunnels { // connections, pools and stacks grow to their size
		if err := t.load(ctx, s, max(units/10, 1)); err != nil {
			return nil, fmt.Errorf("%s: %w", t.kind, err)
		}
	}
	costs := make([][]float64, len(tunnels))
	for range reps {
		for i, t := range tunnels {
			before, err := t.cpu()
			if err != nil {
				return nil, err
			}
			if err := t.load(ctx, s, units); err != nil {
				return nil, fmt.Errorf("%s: %w", t.kind, err)
			}
			after, err := t.cpu()
			if err != nil {
				return nil, err
			}
			costs[i] = append(costs[i], float64(after-before))
		}
	}
	return costs, nil
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}
