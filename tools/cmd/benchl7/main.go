// Command benchl7 measures what a request costs our engine: CPU time of the proxy for a POST of 1 KiB that is answered with 1 KiB,
// with about 1 000 routes, L7 authorization and metrics, and without an access log. The peers are HAProxy and the real Envoy, which
// do the same work in the same run, Envoy with the very same configuration; the ratios to them mean the same on any machine, the
// absolute figures are for reading only.
//
// It starts itself again as our engine. Load and backends are its own, the same for all, and do not count.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// options of a run.
type options struct {
	reps     int // repetitions, of which the median counts
	requests int // per repetition

	only           string // scenarios whose names begin so; "" is all
	profiles       string // directory for CPU profiles of our engine; "" is none
	haproxy, envoy string // binaries
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := runChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "benchl7 child:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.reps, "reps", 7, "repetitions, interleaved with the peers'; their median counts")
	flag.IntVar(&o.requests, "requests", 20000, "requests in each repetition")
	flag.StringVar(&o.only, "only", "", "run the scenarios whose names begin so: l7-h1, l7-h2-4x8, l7-hbone")
	flag.StringVar(&o.profiles, "profiles", "", "write CPU profiles of our engine into this directory")
	flag.StringVar(&o.haproxy, "haproxy", "haproxy", "HAProxy")
	flag.StringVar(&o.envoy, "envoy", "out/envoy/envoy", "the real Envoy: `make envoy` puts it there")
	quick := flag.Bool("quick", false, "a run of seconds, to see that it works; its ratios say little")
	flag.Parse()
	if *quick {
		o.reps, o.requests = 3, 2000
	}
	bench.Main("benchl7", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// scenario is one row of the table.
type scenario struct {
	name    string
	target  map[string]float64 // of the ratio to each peer
	start   func(*testbed, context.Context) error
	proxies func(*testbed) []*proxy
	connect func(context.Context, *testbed, *proxy) (*session, error)
}

func scenarios() []scenario {
	gateways := func(b *testbed) []*proxy { return b.gateways }
	waypoints := func(b *testbed) []*proxy { return b.waypoints }
	var out []scenario
	for _, c := range []int{1, 16, 64} {
		out = append(out, scenario{fmt.Sprintf("l7-h1-%d", c), map[string]float64{haproxy: 1.1, envoyed: 0.7}, (*testbed).startGateways, gateways, connectH1(c)})
	}
	for _, c := range [][2]int{{1, 1}, {4, 8}, {16, 16}} {
		out = append(out, scenario{
			fmt.Sprintf("l7-h2-%dx%d", c[0], c[1]), map[string]float64{haproxy: 0.7, envoyed: 0.5}, (*testbed).startGateways, gateways, connectH2(c[0], c[1]),
		})
	}
	for _, c := range []int{1, 16} {
		out = append(out, scenario{fmt.Sprintf("l7-hbone-%d", c), map[string]float64{envoyed: 0.7}, (*testbed).startWaypoints, waypoints, connectHBONE(c)})
	}
	return out
}

// run prints the report, and returns whether all targets are met.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	start := time.Now()
	bed, err := newTestbed(o)
	if err != nil {
		return false, err
	}
	defer bed.close()
	ok := true
	var ratios []func()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CPU of the proxy, per request\tisthmus\tHAProxy\tEnvoy\tp99\tHAProxy\tEnvoy\tallocations")
	for _, s := range scenarios() {
		if !strings.HasPrefix(s.name, o.only) {
			continue
		}
		sessions, err := bed.measure(ctx, s)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.name, err)
		}
		ours := sessions[isthmus]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\n", s.name, micro(sessions, isthmus, cpuOf), micro(sessions, haproxy, cpuOf), micro(sessions, envoyed, cpuOf),
			micro(sessions, isthmus, slowOf), micro(sessions, haproxy, slowOf), micro(sessions, envoyed, slowOf), median(ours.allocations))
		for _, peer := range []string{haproxy, envoyed} {
			if other := sessions[peer]; other != nil {
				ratios = append(ratios, func() {
					ok = bench.Report(out, s.name+"-"+peer, median(ours.cpu)/median(other.cpu), s.target[peer]) && ok
				})
			}
		}
	}
	fmt.Fprintf(w, "whole run\t%v\t\t\t\t\t\t\n", time.Since(start).Round(time.Millisecond))
	if err := w.Flush(); err != nil {
		return false, err
	}
	for _, print := range ratios {
		print()
	}
	return ok, nil
}

// measure runs a scenario through all proxies in turn.
func (b *testbed) measure(ctx context.Context, s scenario) (map[string]*session, error) {
	if err := s.start(b, ctx); err != nil {
		return nil, err
	}
	var sessions []*session
	byName := map[string]*session{}
	defer func() {
		for _, open := range sessions {
			open.close()
		}
	}()
	for _, p := range s.proxies(b) {
		open, err := s.connect(ctx, b, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		sessions = append(sessions, open)
		name, _, _ := strings.Cut(p.name, "-")
		byName[name] = open
	}
	for _, open := range sessions { // connections, pools and stacks grow to their size
		if err := open.load(max(b.options.requests/4, 1)); err != nil {
			return nil, fmt.Errorf("%s: %w", open.proxy.name, err)
		}
	}
	for range b.options.reps {
		for _, open := range sessions {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err := open.measure(b.options.requests); err != nil {
				return nil, fmt.Errorf("%s: %w", open.proxy.name, err)
			}
		}
	}
	return byName, nil
}

func cpuOf(s *session) []float64  { return s.cpu }
func slowOf(s *session) []float64 { return s.slow }

// micro prints the median of a figure of one proxy, if it takes part.
func micro(sessions map[string]*session, name string, of func(*session) []float64) string {
	s := sessions[name]
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%.1f µs", median(of(s))/1e3)
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}
