// Command benchl7 measures what a request costs our engine: CPU time of the proxy for a POST of 1 KiB that is answered with 1 KiB,
// with about 1 000 routes, L7 authorization and metrics, and without an access log. The peers are HAProxy and the real Envoy, which
// do the same work in the same run, Envoy with the very same configuration; the ratios to them mean the same on any machine, the
// absolute figures are for reading only. With the same proxies it measures the latency at half of saturation, and the memory of
// connections that are idle; and of our engine alone by how much the decision about a request grows with the number of routes, and what
// it costs to change one route of many services. Where each target comes from is said where it is.
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
	"time"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// options of a run.
type options struct {
	reps     int // repetitions, of which the median counts
	requests int // per repetition
	idle     int // connections whose memory is measured
	routes   int // of the largest table
	services int // behind the waypoint that gets changes
	changes  int // in each repetition

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
	flag.IntVar(&o.idle, "idle", 1000, "idle connections whose memory is measured")
	flag.IntVar(&o.routes, "routes", 10000, "routes of the largest table")
	flag.IntVar(&o.services, "services", 1000, "services behind the waypoint that gets changes")
	flag.IntVar(&o.changes, "changes", 200, "changes of one route, in each repetition")
	flag.StringVar(&o.only, "only", "", "run what has a name that begins so: l7-h1, l7-h2-4x8, l7-hbone, l7-p99, l7-memory, route, l7-change")
	flag.StringVar(&o.profiles, "profiles", "", "write CPU profiles of our engine into this directory")
	flag.StringVar(&o.haproxy, "haproxy", "haproxy", "HAProxy")
	flag.StringVar(&o.envoy, "envoy", "out/envoy/envoy", "the real Envoy: `make envoy` puts it there")
	quick := flag.Bool("quick", false, "a run of seconds, to see that it works; its ratios say little")
	flag.Parse()
	if *quick {
		o.reps, o.requests, o.idle, o.services, o.changes = 3, 2000, 200, 200, 50
	}
	bench.Main("benchl7", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// wants is whether the user asked for what is named so.
func (o options) wants(name string) bool { return strings.HasPrefix(name, o.only) }

// scenario is one row of the table.
type scenario struct {
	name    string
	target  map[string]float64 // of the ratio to each peer; without one it is for reading
	start   func(*testbed, context.Context) error
	proxies func(*testbed) []*proxy
	connect connector
}

// scenarios are those of CPU time per request. The targets are the design's for this stage: over HTTP/1.1 1.1 times HAProxy's and 0.7 times
// Envoy's, over HTTP/2 0.7 and 0.5 times.
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
	for _, c := range []int{1, 16, 64} {
		out = append(out, scenario{fmt.Sprintf("l7-hbone-%d", c), map[string]float64{envoyed: 0.7}, (*testbed).startWaypoints, waypoints, connectHBONE(c)})
	}
	for _, c := range [][2]int{{1, 1}, {4, 8}} {
		out = append(out, scenario{
			fmt.Sprintf("l7-hbone-h2-%dx%d", c[0], c[1]), map[string]float64{envoyed: 0.5}, (*testbed).startWaypoints, waypoints, connectHBONEH2(c[0], c[1]),
		})
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
	r := &report{out: out}
	// Memory first: what the peers have freed they keep, and use again.
	for _, part := range []func(context.Context, *testbed, *report) error{memories, costs, paces, lookups, changes} {
		if err := part(ctx, bed, r); err != nil {
			return false, err
		}
	}
	fmt.Fprintf(out, "whole run  %v\n", time.Since(start).Round(time.Millisecond))
	return r.print(), nil
}

// mostAllocations is how many a proxied request of HTTP/1.1 may make: the design's.
const mostAllocations = 3

// costs measures what a request costs.
func costs(ctx context.Context, b *testbed, r *report) error {
	return r.table("CPU of the proxy, per request\tisthmus\tHAProxy\tEnvoy\tp99\tHAProxy\tEnvoy\tallocations", func(w io.Writer) error {
		for _, s := range scenarios() {
			if !b.options.wants(s.name) {
				continue
			}
			sessions, err := b.measure(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			allocations := median(sessions[isthmus].allocations)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\n", s.name, micro(sessions, isthmus, cpuOf), micro(sessions, haproxy, cpuOf), micro(sessions, envoyed, cpuOf),
				micro(sessions, isthmus, slowOf), micro(sessions, haproxy, slowOf), micro(sessions, envoyed, slowOf), allocations)
			r.ratios(s, sessions, cpuOf)
			if s.name == "l7-h1-16" {
				r.ratio("l7-h1-allocations", allocations, mostAllocations)
			}
		}
		return nil
	})
}

// measure runs a scenario through all proxies in turn.
func (b *testbed) measure(ctx context.Context, s scenario) (map[string]*session, error) {
	sessions, byName, err := b.open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer closeAll(sessions)
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

// open connects to all proxies of a scenario, and uses the connections until they, pools and stacks have their size.
func (b *testbed) open(ctx context.Context, s scenario) (sessions []*session, byName map[string]*session, err error) {
	defer func() {
		if err != nil {
			closeAll(sessions)
		}
	}()
	if err := s.start(b, ctx); err != nil {
		return nil, nil, err
	}
	byName = map[string]*session{}
	for _, p := range s.proxies(b) {
		open, err := s.connect(ctx, b, p)
		if err != nil {
			return sessions, nil, fmt.Errorf("%s: %w", p.name, err)
		}
		sessions = append(sessions, open)
		byName[p.kind()] = open
	}
	for _, open := range sessions {
		if err := open.load(max(b.options.requests/4, 1)); err != nil {
			return sessions, nil, fmt.Errorf("%s: %w", open.proxy.name, err)
		}
	}
	return sessions, byName, nil
}

func closeAll(sessions []*session) {
	for _, s := range sessions {
		s.close()
	}
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
