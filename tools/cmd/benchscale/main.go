// Command benchscale measures the control plane beside a real API server: etcd and kube-apiserver as `make envtest` builds them, all
// objects created through the API, the real program as a process of its own, and simulated ztunnels that read the wire without
// decoding it. The figures are ratios to Istio's control plane, which does the same beside the same API server in the same run, or to
// what was recorded for it on a machine of the same kind; it is named peer in the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/tools/bench"
	"github.com/isthmus-mesh/isthmus/tools/internal/planeproc"
)

// options of a run.
type options struct {
	layouts       string
	like, clients int
	lone, churn   int
	rate          float64
	program, peer string
	profiles      string
}

func main() {
	var o options
	flag.StringVar(&o.layouts, "layouts", "1000x10,5000x5,5000x10", "services x pods of each; one with as many services as that before only adds pods")
	flag.IntVar(&o.like, "like", peerClients, "simulated ztunnels of the measurement that is compared")
	flag.IntVar(&o.clients, "clients", 200, "simulated ztunnels in the end")
	flag.IntVar(&o.lone, "lone", 200, "changes made one after the other")
	flag.IntVar(&o.churn, "churn", 1000, "changes made at -rate")
	flag.Float64Var(&o.rate, "rate", 50, "changes per second under churn")
	flag.StringVar(&o.program, "pilot", "", "the program to measure, or several by commas, one after the other beside the same API server; built when empty")
	flag.StringVar(&o.peer, "peer", "", "Istio's control plane, as `kindnode binaries -only pilot-discovery` builds it; when empty, what was recorded for it is compared with")
	flag.StringVar(&o.profiles, "profiles", "", "directory to write the control plane's heap and, of the churn, CPU profiles to")
	flag.Parse()
	bench.Main("benchscale", func(ctx context.Context, out io.Writer) (bool, error) { return run(ctx, o, out) })
}

// run measures all layouts and prints the report; it returns whether all targets are met.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	bin, root, err := apiserver.Find()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "benchscale-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if o.program == "" {
		o.program = filepath.Join(dir, "pilot-discovery")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.program, "./pilot/cmd/pilot-discovery")
		build.Dir = root
		if output, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build the control plane: %w\n%s", err, output)
		}
	}
	layouts, err := parse(o.layouts)
	if err != nil {
		return false, err
	}
	ok := true
	var b *bed
	for _, l := range layouts {
		if b, err = b.grow(ctx, bin, root, l); err != nil {
			return false, fmt.Errorf("create %s: %w", l, err)
		}
		defer b.server.Stop() // again is allowed
		p, known := recorded(l)
		if o.peer != "" && known {
			if p, err = measurePeer(ctx, o, b); err != nil {
				return false, fmt.Errorf("measure the peer, %s: %w", l, err)
			}
		}
		for program := range strings.SplitSeq(o.program, ",") {
			m, err := measure(ctx, o, planeproc.Command{Program: program}, b)
			if err != nil {
				return false, fmt.Errorf("measure %s: %w", l, err)
			}
			if err := m.print(out, p, known); err != nil {
				return false, err
			}
			ok = (!known || m.report(out, p)) && ok
		}
	}
	return ok, nil
}

// measurePeer measures Istio's control plane in the state that the bed is in, as it is and with hardly any debounce.
func measurePeer(ctx context.Context, o options, b *bed) (peer, error) {
	o.clients = o.like
	env := []string{"PILOT_ENABLE_AMBIENT=true", fmt.Sprintf("PILOT_MAX_REQUESTS_PER_SECOND=%d", 1<<20)} // or it refuses most clients at first
	usual, err := measure(ctx, o, planeproc.Command{Program: o.peer, Env: env}, b)
	if err != nil {
		return peer{}, err
	}
	quick, err := measure(ctx, o, planeproc.Command{Program: o.peer, Env: append(env, "PILOT_DEBOUNCE_AFTER=1ms")}, b)
	if err != nil {
		return peer{}, fmt.Errorf("with a debounce of 1 ms: %w", err)
	}
	s, q := usual.served[0], quick.served[0]
	return peer{
		source: "in this run", startCPU: min(usual.startCPU, quick.startCPU), heap: usual.heap, rss: usual.rss, rssServed: s.rss,
		syncCPU: min(s.syncCPU, q.syncCPU), loneP50: s.lone.at(50), loneP99: s.lone.at(99), churnP50: s.churned.at(50), churnP99: s.churned.at(99), churnCPU: s.churnCPU,
		tunedLoneP99: q.lone.at(99), tunedChurnP99: q.churned.at(99), tunedChurnCPU: q.churnCPU,
	}, nil
}

// layout is the size of a mesh.
type layout struct{ services, pods int }

func (l layout) String() string { return fmt.Sprintf("%dx%d", l.services, l.pods) }

func parse(text string) (out []layout, err error) {
	for part := range strings.SplitSeq(text, ",") {
		var l layout
		if _, err := fmt.Sscanf(part, "%dx%d", &l.services, &l.pods); err != nil || l.services < 1 || l.pods < 1 {
			return nil, fmt.Errorf("-layouts: %q is not services x pods, such as 1000x10", part)
		}
		out = append(out, l)
	}
	return out, nil
}

// peerClients is how many the peer's figures are with.
const peerClients = 50

// peer is what was measured of istiod.
type peer struct {
	source               string // where that was
	startCPU             time.Duration
	heap, rss, rssServed float64 // MiB
	syncCPU              time.Duration
	loneP50, loneP99     time.Duration
	churnP50, churnP99   time.Duration
	churnCPU             time.Duration // per 1000 changes
	// With PILOT_DEBOUNCE_AFTER=1ms; 0 where that was not measured.
	tunedLoneP99, tunedChurnP99, tunedChurnCPU time.Duration
}

// recorded returns the peer's figures for a layout, if there are any.
func recorded(l layout) (peer, bool) {
	const ms, source = time.Millisecond, "recorded on 2 shared cores"
	switch l {
	case layout{1000, 10}:
		return peer{
			source: source, startCPU: 6600 * ms, heap: 234, rss: 478, rssServed: 696, syncCPU: 3200 * ms, loneP50: 105 * ms, loneP99: 118 * ms,
			churnP50: 5100 * ms, churnP99: 9900 * ms, churnCPU: 2500 * ms,
		}, true
	case layout{5000, 5}:
		return peer{
			source: source, startCPU: 9900 * ms, heap: 552, rss: 981, rssServed: 1786, syncCPU: 11200 * ms, loneP50: 105 * ms, loneP99: 135 * ms,
			churnP50: 1700 * ms, churnP99: 7400 * ms, churnCPU: 2200 * ms,
			tunedLoneP99: 9700 * time.Microsecond, tunedChurnP99: 27 * ms, tunedChurnCPU: 9300 * ms,
		}, true
	}
	return peer{}, false
}

// print writes the table for people.
func (m *measurement) print(out io.Writer, p peer, known bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(what, ours, format string, args ...any) {
		beside := ""
		if known && format != "" {
			beside = "peer: " + fmt.Sprintf(format, args...)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", what, ours, beside)
	}
	row("services x pods", m.layout.String(), "%s, with %d clients", p.source, peerClients)
	row("load of the machine (1 min), before and after", m.loadBefore+", "+m.loadAfter, "")
	row("start to ready (CPU)", fmt.Sprintf("%s (%s)", seconds(m.start), seconds(m.startCPU)), "(%s)", seconds(p.startCPU))
	row("RSS, heap after GC", fmt.Sprintf("%.0f, %.0f MiB", m.rss, m.heap), "%.0f, %.0f MiB", p.rss, p.heap)
	for i, s := range m.served {
		name := fmt.Sprintf("%d clients: ", s.clients)
		beside := known && i == 0
		known := known
		row = func(what, ours, format string, args ...any) {
			text := ""
			if known && beside && format != "" {
				text = "peer: " + fmt.Sprintf(format, args...)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", name+what, ours, text)
		}
		row(fmt.Sprintf("first state of %d more, %.1f MB each (CPU)", s.added, float64(s.syncBytes)/1e6), fmt.Sprintf("%s (%s)", seconds(s.sync), seconds(s.syncCPU)), "(%s)", seconds(p.syncCPU))
		row("RSS, highest so far", fmt.Sprintf("%.0f, %.0f MiB", s.rss, s.peak), "%.0f MiB", p.rssServed)
		row("lone change acknowledged → at a client, p50, p99", fmt.Sprintf("%v, %v", s.lone.at(50), s.lone.at(99)), "%v, %v", p.loneP50, p.loneP99)
		row("… → at the last client, p50, p99", fmt.Sprintf("%v, %v", s.loneLast.at(50), s.loneLast.at(99)), "")
		row(fmt.Sprintf("the same at %.0f changes/s", s.achieved), fmt.Sprintf("%v, %v", s.churned.at(50), s.churned.at(99)), "%v, %v", p.churnP50, p.churnP99)
		row("CPU per 1000 of these changes (responses for each change)", fmt.Sprintf("%s (%.2f)", seconds(s.churnCPU), s.responses), "%s", seconds(p.churnCPU))
		if p.tunedLoneP99 > 0 {
			row("", "", "with a debounce of 1 ms: lone p99 %v, under churn p99 %v, CPU %s", p.tunedLoneP99, p.tunedChurnP99, seconds(p.tunedChurnCPU))
		}
	}
	return w.Flush()
}

// report prints the ratios to the peer's figures of the same layout with as many clients; it returns whether all targets are met.
func (m *measurement) report(out io.Writer, p peer) bool {
	s := m.served[0]
	if s.clients != peerClients {
		return true
	}
	ok := true
	line := func(name string, value, target float64) {
		ok = bench.Report(out, fmt.Sprintf("scale-%s-%s", m.layout, name), value, target) && ok
	}
	line("start-cpu", ratio(m.startCPU, p.startCPU), 0.25)
	line("heap", m.heap/p.heap, 0.2)
	line("clients-cpu", ratio(s.syncCPU, p.syncCPU), 0.15)
	line("clients-rss", max(0, s.rss-m.rss)/(p.rssServed-p.rss), 0.1)
	line("lone-p99", ratio(s.lone.at(99), p.loneP99), 0.1)
	line("churn-p99", ratio(s.churned.at(99), p.churnP99), 0.01)
	line("churn-cpu", ratio(s.churnCPU, p.churnCPU), 1)
	if p.tunedLoneP99 > 0 {
		line("lone-p99-tuned", ratio(s.lone.at(99), p.tunedLoneP99), 1)
		line("churn-p99-tuned", ratio(s.churned.at(99), p.tunedChurnP99), 1)
		line("churn-cpu-tuned", ratio(s.churnCPU, p.tunedChurnCPU), 0.25)
	}
	return ok
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// durations are a sample.
type durations []time.Duration

func (d durations) at(p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return bench.Percentile(d, p)
}

var errTimeout = errors.New("it takes too long")
