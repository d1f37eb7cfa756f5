// Command benchwds measures how the control plane passes one pod's change on to ztunnels: the real one, in this process, fed by
// a directory of manifests, with clients on real sockets. Every figure is a ratio to something measured in the same run, so
// that it means the same on any machine; the absolute ones are for reading only.
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

// echoSize is about what a WDS response for one pod has.
const echoSize = 300

// options of a run.
type options struct {
	clients, small, large, changes int
}

func main() {
	var o options
	flag.IntVar(&o.clients, "clients", 50, "connected clients for latency")
	flag.IntVar(&o.small, "small", 100, "services of the small layout")
	flag.IntVar(&o.large, "large", 5000, "services of the large layout")
	flag.IntVar(&o.changes, "changes", 300, "changes measured in each layout")
	flag.Parse()
	bench.Main("benchwds", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// run prints the report, and returns whether all targets are met.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	start := time.Now()
	echo, err := bench.Echo(ctx, o.clients, echoSize, o.changes)
	if err != nil {
		return false, fmt.Errorf("measure the echo: %w", err)
	}
	small, err := measureLayout(ctx, o.small, o.clients, o.changes)
	if err != nil {
		return false, fmt.Errorf("measure %d services: %w", o.small, err)
	}
	large, err := measureLayout(ctx, o.large, o.clients, o.changes)
	if err != nil {
		return false, fmt.Errorf("measure %d services: %w", o.large, err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "one message to %d clients and back\tp50 %v\tp99 %v\n", o.clients, bench.Percentile(echo, 50), bench.Percentile(echo, 99))
	for _, l := range []layout{small, large} {
		fmt.Fprintf(w, "%d services: start to served\t%v\t\n", l.services, l.ready.Round(time.Millisecond))
		fmt.Fprintf(w, "%d services: first sync of %d clients\t%v\t%d bytes each\n", l.services, o.clients, l.sync.Round(time.Millisecond), l.syncBytes)
		fmt.Fprintf(w, "%d services: one pod's change → last of %d clients\tp50 %v\tp99 %v\n", l.services, o.clients, bench.Percentile(l.latency, 50), bench.Percentile(l.latency, 99))
		fmt.Fprintf(w, "%d services: CPU per change, one client\t%v\t\n", l.services, l.cpu)
		fmt.Fprintf(w, "%d services: bytes per change and client\t%.0f\tresource %d, its Address %d\n", l.services, l.bytes, l.resource, l.content)
	}
	fmt.Fprintf(w, "whole run\t%v\t\n", time.Since(start).Round(time.Millisecond))
	if err := w.Flush(); err != nil {
		return false, err
	}
	ok := bench.Report(out, "wds-latency", float64(bench.Percentile(large.latency, 50))/float64(bench.Percentile(echo, 50)), 5)
	ok = bench.Report(out, "wds-cpu-scale", float64(large.cpu)/float64(small.cpu), 1.3) && ok
	ok = bench.Report(out, "wds-bytes", large.bytes/float64(large.resource), 1.5) && ok
	return ok, nil
}
