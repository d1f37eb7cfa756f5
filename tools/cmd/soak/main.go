// Command soak runs the mesh under load for long while everything around the load changes, and tells what was lost and what grew.
//
// It brings the sandbox up with the real programs. Part l4: open connections, streams and new connections between pods on two nodes,
// while pods come and go, policies change, certificates rotate, and the control plane's connections are cut and it is replaced. Part l7:
// requests at half of what the bed takes, through waypoints, while routes, policies and endpoints change and a waypoint is replaced again
// and again. All that is sent is verified, by content and count.
//
// bed.go is the sandbox, relay.go what cuts the control plane off, guest.go pods with an application of ours, echo.go the process that
// answers in them, l4.go and l7.go the loads,
// churn.go what changes, ledger.go what was lost, watch.go the processes, slope.go whether they grow, and verdict.go the report.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox"
	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// options of a run.
type options struct {
	only string // l4, l7, or "" for both
	bin  string
	name string // of the sandbox
	// time under load, of each part.
	time time.Duration
	// connections that are open in part l4.
	connections int
	// period in which each of them is used once.
	period time.Duration
	// rate of requests in part l7, per second; 0 is share of what the bed takes, which is measured for settle first.
	rate, share float64
	settle      time.Duration
	// ttl of the workloads' certificates.
	ttl time.Duration
	// pace divides the times between changes.
	pace float64
	// verbose tells of each change, and of each loss when it happens.
	verbose bool
}

func main() {
	if handled, exit := sandbox.Main(os.Args); handled {
		os.Exit(exit)
	}
	if echoMain(os.Args) {
		return
	}
	o := options{name: "soak", pace: 1}
	flag.StringVar(&o.only, "only", "", "run one part: l4 or l7")
	flag.StringVar(&o.bin, "bin", "bin", "directory of the programs: `make build` puts them there")
	flag.DurationVar(&o.time, "time", time.Hour, "time under load, of each part; what grows is judged from five minutes on")
	flag.IntVar(&o.connections, "connections", 10000, "connections that are open")
	flag.DurationVar(&o.period, "period", time.Minute, "period in which each open connection is used once")
	flag.Float64Var(&o.rate, "rate", 0, "requests per second; 0 is a share of what the bed takes")
	flag.Float64Var(&o.share, "share", 0.5, "share of what the bed takes")
	flag.DurationVar(&o.settle, "saturate", 15*time.Second, "how long to measure what the bed takes")
	flag.DurationVar(&o.ttl, "ttl", time.Minute, "lifetime of workloads' certificates")
	flag.BoolVar(&o.verbose, "v", false, "tell of each change and each loss when it happens")
	flag.Parse()
	bench.Main("soak", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// run prints the report, and returns whether nothing was lost and nothing grew.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	parts := []struct {
		name        string
		connections int
		run         func(context.Context, *bed, io.Writer) (bool, error)
	}{{"l4", o.connections, soakL4}, {"l7", 0, soakL7}}
	ok, known := true, o.only == ""
	for _, part := range parts {
		if o.only != "" && o.only != part.name {
			continue
		}
		known = true
		good, err := onePart(ctx, o, part.name, part.connections, part.run, out)
		if err != nil {
			return false, fmt.Errorf("%s: %w", part.name, err)
		}
		ok = ok && good
	}
	if !known {
		return false, fmt.Errorf("there is no part %q: want l4 or l7", o.only)
	}
	return ok, nil
}

func onePart(ctx context.Context, o options, name string, connections int, part func(context.Context, *bed, io.Writer) (bool, error), out io.Writer) (ok bool, err error) {
	b, err := newBed(ctx, o, name, connections, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return false, err
	}
	defer func() {
		if closeErr := b.close(ctx); closeErr != nil {
			ok, err = false, errors.Join(err, closeErr)
		}
	}()
	return part(ctx, b, out)
}
