// Command benchxds measures how the control plane passes one change of a route, and one of an endpoint, on to the waypoint that
// uses it: the real control plane, in this process, fed by a directory of manifests, with clients on real sockets that compile
// what they get as our waypoint does. Every figure is a ratio to something measured in the same run, so that it means the same on
// any machine; the absolute ones are for reading only.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// echoSize is about what a response with the routes of one service has.
const echoSize = 1500

// options of a run.
type options struct {
	// replicas of the waypoint that is concerned; each of the other namespaces has one that is not.
	replicas int
	// services of the layout in which latency is measured, and of the two between which CPU is compared.
	services, small, large int
	changes                int
}

func main() {
	var o options
	flag.IntVar(&o.replicas, "replicas", 50, "pods of the waypoint that a change concerns")
	flag.IntVar(&o.services, "services", 1000, "services of the layout for latency")
	flag.IntVar(&o.small, "small", 100, "services of the small layout for CPU")
	flag.IntVar(&o.large, "large", 5000, "services of the large layout for CPU")
	flag.IntVar(&o.changes, "changes", 300, "changes measured in each layout")
	flag.Parse()
	bench.Main("benchxds", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// run prints the report, and returns whether all targets are met.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	start := time.Now()
	echo, err := bench.Echo(ctx, o.replicas, echoSize, o.changes)
	if err != nil {
		return false, fmt.Errorf("measure the echo: %w", err)
	}
	mesh := layout{services: o.services}
	if err := mesh.run(ctx, func(f *fleet, p *plane) error { return mesh.latencies(ctx, f, p, o) }); err != nil {
		return false, fmt.Errorf("measure %d services: %w", o.services, err)
	}
	small, large := layout{services: o.small}, layout{services: o.large}
	for _, l := range []*layout{&small, &large} {
		if err := l.run(ctx, func(f *fleet, p *plane) error { return l.cpuTimes(ctx, f, p, o.changes) }); err != nil {
			return false, fmt.Errorf("measure %d services: %w", l.services, err)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "one message to %d clients and back\tp50 %v\tp99 %v\n", o.replicas, bench.Percentile(echo, 50), bench.Percentile(echo, 99))
	for _, m := range []struct {
		what string
		change
	}{{"weight", mesh.route}, {"pod", mesh.endpoint}} {
		fmt.Fprintf(w, "%d services: one %s → in the routing of %d waypoint pods\tp50 %v\tp99 %v\n", mesh.services, m.what, o.replicas, bench.Percentile(m.latency, 50), bench.Percentile(m.latency, 99))
		fmt.Fprintf(w, "%d services: bytes per change and client\t%.0f\tresource %d\n", mesh.services, m.bytes, m.resource)
	}
	fmt.Fprintf(w, "%d services: first sync of a waypoint\t%v\t%d bytes\n", mesh.services, mesh.sync.Round(time.Millisecond), mesh.syncBytes)
	for _, l := range []layout{small, large} {
		fmt.Fprintf(w, "%d services: CPU per change of a weight, one client\t%v\t\n", l.services, l.cpu)
	}
	fmt.Fprintf(w, "whole run\t%v\t\n", time.Since(start).Round(time.Millisecond))
	if err := w.Flush(); err != nil {
		return false, err
	}
	base := float64(bench.Percentile(echo, 50))
	ok := bench.Report(out, "xds-route-latency", float64(bench.Percentile(mesh.route.latency, 50))/base, 8)
	ok = bench.Report(out, "xds-endpoint-latency", float64(bench.Percentile(mesh.endpoint.latency, 50))/base, 8) && ok
	ok = bench.Report(out, "xds-route-bytes", mesh.route.bytes/float64(mesh.route.resource), 1.5) && ok
	ok = bench.Report(out, "xds-endpoint-bytes", mesh.endpoint.bytes/float64(mesh.endpoint.resource), 1.5) && ok
	ok = bench.Report(out, "xds-route-cpu-scale", float64(large.cpu)/float64(small.cpu), 1.3) && ok
	return ok, nil
}
