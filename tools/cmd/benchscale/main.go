// Command benchscale measures the control plane beside a real API server: etcd and kube-apiserver as `make envtest` builds them, all
// objects created through the API, the real program as a process of its own, and simulated ztunnels that read the wire without
// decoding it. The figures are ratios to those that were recorded for istiod, with the same method on a machine of the same kind;
// they are named peer in the output, and so is the load of the machine, which they were not measured beside.
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
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// options of a run.
type options struct {
	services      string
	pods, clients int
	lone, churn   int
	rate          float64
	program       string
	profiles      string
}

func main() {
	var o options
	flag.StringVar(&o.services, "services", "1000,5000", "numbers of services, one layout each")
	flag.IntVar(&o.pods, "pods", 10, "pods of each service")
	flag.IntVar(&o.clients, "clients", 200, "simulated ztunnels")
	flag.IntVar(&o.lone, "lone", 200, "changes made one after the other")
	flag.IntVar(&o.churn, "churn", 1000, "changes made at -rate")
	flag.Float64Var(&o.rate, "rate", 50, "changes per second under churn")
	flag.StringVar(&o.program, "pilot", "", "the program to measure; built when empty")
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
	ok := true
	for text := range strings.SplitSeq(o.services, ",") {
		services, err := strconv.Atoi(text)
		if err != nil {
			return false, fmt.Errorf("-services: %w", err)
		}
		m, err := measure(ctx, o, bin, root, services)
		if err != nil {
			return false, fmt.Errorf("measure %d services: %w", services, err)
		}
		if err := m.print(out); err != nil {
			return false, err
		}
		ok = m.report(out) && ok
	}
	return ok, nil
}

// peer is what was recorded for istiod with as many services; the larger layout had 5 pods of each service, which is half of ours.
type peer struct {
	pods                 int
	startCPU             time.Duration
	heap, rss, rssServed float64 // MiB
	clientCPU            time.Duration
	loneP50, loneP99     time.Duration
	churnP50, churnP99   time.Duration
	churnCPU             time.Duration // per 1000 changes
	// With PILOT_DEBOUNCE_AFTER=1ms; 0 where that was not measured.
	tunedLoneP99, tunedChurnP99, tunedChurnCPU time.Duration
}

// recorded returns the peer's figures for the nearest layout.
func recorded(services int) (peer, string) {
	const ms = time.Millisecond
	if services < 3000 {
		return peer{
			pods: 10, startCPU: 6600 * ms, heap: 234, rss: 478, rssServed: 696, clientCPU: 3200 * ms / 50, loneP50: 105 * ms, loneP99: 118 * ms,
			churnP50: 5100 * ms, churnP99: 9900 * ms, churnCPU: 2500 * ms,
		}, "1000 services x 10 pods, 50 clients"
	}
	return peer{
		pods: 5, startCPU: 9900 * ms, heap: 552, rss: 981, rssServed: 1786, clientCPU: 11200 * ms / 50, loneP50: 105 * ms, loneP99: 135 * ms,
		churnP50: 1700 * ms, churnP99: 7400 * ms, churnCPU: 2200 * ms,
		tunedLoneP99: 9700 * time.Microsecond, tunedChurnP99: 27 * ms, tunedChurnCPU: 9300 * ms,
	}, "5000 services x 5 pods, 50 clients"
}

// print writes the table for people.
func (m *measurement) print(out io.Writer) error {
	p, name := recorded(m.services)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, what+"\t"+format+"\n", args...)
	}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
	row("layout", "%d services x %d pods, %d clients\tpeer: %s", m.services, m.pods, m.clients, name)
	row("load of the machine (1 min), before and after", "%s, %s\tpeer: 2 shared cores, other times", m.loadBefore, m.loadAfter)
	row("objects created through the API", "%d in %s\t", m.objects, seconds(m.created))
	row("start to ready", "%s (%s CPU)\tpeer: %s CPU", seconds(m.start), seconds(m.startCPU), seconds(p.startCPU))
	row("RSS, heap after GC", "%.0f, %.0f MiB\tpeer: %.0f, %.0f MiB", m.rss, m.heap, p.rss, p.heap)
	row("first state of all clients", "%s (%s CPU), %.1f MB each\tpeer: %s CPU for as many", seconds(m.sync), seconds(m.syncCPU), float64(m.syncBytes)/1e6, seconds(p.clientCPU*time.Duration(m.clients)))
	row("RSS with clients, highest", "%.0f, %.0f MiB\tpeer: %.0f MiB with 50 clients", m.rssServed, m.rssPeak, p.rssServed)
	row("lone change acknowledged → at a client, p50, p99", "%v, %v\tpeer: %v, %v", m.lone.at(50), m.lone.at(99), p.loneP50, p.loneP99)
	row("lone change acknowledged → at the last client, p50, p99", "%v, %v\t", m.loneLast.at(50), m.loneLast.at(99))
	row(fmt.Sprintf("the same, %.0f changes/s (%.0f were made)", m.rate, m.achieved), "%v, %v\tpeer: %v, %v", m.churned.at(50), m.churned.at(99), p.churnP50, p.churnP99)
	row("CPU per 1000 changes", "%s\tpeer: %s with 50 clients", seconds(m.churnCPU), seconds(p.churnCPU))
	if p.tunedLoneP99 > 0 {
		row("", "\tpeer tuned to 1 ms: lone p99 %v, churn p99 %v, %s CPU", p.tunedLoneP99, p.tunedChurnP99, seconds(p.tunedChurnCPU))
	}
	return w.Flush()
}

// report prints the ratios; it returns whether all targets are met.
func (m *measurement) report(out io.Writer) bool {
	p, _ := recorded(m.services)
	ok := true
	line := func(name string, value, target float64) {
		ok = bench.Report(out, fmt.Sprintf("scale-%d-%s", m.services, name), value, target) && ok
	}
	line("start-cpu", ratio(m.startCPU, p.startCPU), 0.25)
	line("heap", m.heap/p.heap, 0.2)
	line("clients-cpu", ratio(m.syncCPU, p.clientCPU*time.Duration(m.clients)), 0.15)
	line("clients-rss", max(0, m.rssServed-m.rss)/(p.rssServed-p.rss), 0.1)
	line("lone-p99", ratio(m.lone.at(99), p.loneP99), 0.1)
	line("churn-p99", ratio(m.churned.at(99), p.churnP99), 0.01)
	line("churn-cpu", ratio(m.churnCPU, p.churnCPU), 1)
	if p.tunedLoneP99 > 0 {
		line("lone-p99-tuned", ratio(m.lone.at(99), p.tunedLoneP99), 1)
		line("churn-p99-tuned", ratio(m.churned.at(99), p.tunedChurnP99), 1)
		line("churn-cpu-tuned", ratio(m.churnCPU, p.tunedChurnCPU), 0.25)
	}
	return ok
}

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
