package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

const (
	// judgeable is how long a run must be for slopes to say something.
	judgeable = 5 * time.Minute
	// memoryGrowth, in bytes, and filesGrowth are how much a process may grow in an hour. In less time, it may differ by as much as a steady
	// load makes it: by memorySway and filesSway, or a share of what it has if that is more.
	memoryGrowth, filesGrowth = 16 << 20, 16
	memorySway, filesSway     = 8 << 20, 24
	memoryShare, filesShare   = 0.1, 0.05
	// counting is the time between two looks at the control plane's counters.
	counting = time.Second
)

// judged is what a part is judged by.
type judged struct {
	// pods have proxies that must have no more open after the load than before.
	pods []podRef
	// steady are programs with a process that lives long enough for a slope.
	steady []string
	// identities are workloads whose certificates rotate throughout.
	identities int
	// filesLeft and goroutinesLeft is how many more than before all of these together may have after the load: for connections to the control
	// plane, which come and go by themselves, and tunnels that are kept for minutes.
	filesLeft, goroutinesLeft int
	load                      func(context.Context, *ledger) error
}

// judge runs a load, prints the report, and returns whether all is well.
func (b *bed) judge(ctx context.Context, out io.Writer, j judged) (bool, error) {
	var tell io.Writer
	if b.options.verbose {
		tell = os.Stderr
	}
	l := newLedger(tell)
	w, err := newWatch(b, l.begin)
	if err != nil {
		return false, err
	}
	before, err := b.resting(ctx, w, j.pods)
	if err != nil {
		return false, err
	}
	watching, enough := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	issued := newIssued(b)
	watchers.Go(func() { w.follow(watching, max(b.options.time/1200, 200*time.Millisecond)) })
	watchers.Go(func() { issued.follow(watching) })
	err = j.load(ctx, l)
	enough()
	watchers.Wait()
	if err != nil {
		return false, err
	}
	if want := j.identities * int(b.options.time/b.options.ttl); issued.total() < want {
		l.lose("certificates", fmt.Errorf("%d were issued, not %d", issued.total(), want))
	}
	loaded := time.Since(l.begin)
	left, err := b.leftOver(ctx, w, j, before)
	if err != nil {
		return false, err
	}
	return b.report(out, j, verdict{ledger: l, watch: w, loaded: loaded, issued: issued.total(), left: left})
}

// leftOver waits until the proxies have no more open than before, as far as is allowed, and returns how much more they have.
func (b *bed) leftOver(ctx context.Context, w *watch, j judged, before map[string]rest) (left rest, err error) {
	asked := false
	waited := b.eventually(ctx, "the proxies come to rest", func() error {
		now, err := b.resting(ctx, w, j.pods)
		if err != nil {
			return err
		}
		asked, left = true, rest{}
		for pod, r := range now { // a pod that has moved from node to node has left nothing
			left.files += r.files - before[pod].files
			left.goroutines += r.goroutines - before[pod].goroutines
		}
		if left.files > j.filesLeft || left.goroutines > j.goroutinesLeft {
			return fmt.Errorf("%d files and %d goroutines more than before", left.files, left.goroutines)
		}
		return nil
	})
	if !asked {
		return left, waited
	}
	return left, ctx.Err()
}

// verdict is what is known after a run.
type verdict struct {
	ledger *ledger
	watch  *watch
	loaded time.Duration
	issued int
	left   rest
}

func (b *bed) report(out io.Writer, j judged, v verdict) (bool, error) {
	lost, losses := v.ledger.total()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "soak %s\t%s under load\t\t\t\t\t\n", b.name, v.loaded.Round(time.Second))
	fmt.Fprintf(w, "came back as sent\t%d messages\t%.1f MiB\t%d connections\t\t\t\n", v.ledger.messages.Load(), float64(v.ledger.bytes.Load())/(1<<20), v.ledger.connections.Load())
	if n := v.ledger.again.Load(); n > 0 {
		fmt.Fprintf(w, "sent on a connection that was being closed, and again\t%d\t\t\t\t\t\n", n)
	}
	changes := v.ledger.changes()
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		fmt.Fprintf(w, "%s\t%d times\t\t\t\t\t\n", name, changes[name])
	}
	fmt.Fprintf(w, "connections to the control plane cut\t%d\t\t\t\t\t\n", b.relay.cutSoFar())
	fmt.Fprintf(w, "certificates issued\t%d\t\t\t\t\t\n", v.issued)
	worst := v.processes(w, j)
	if err := w.Flush(); err != nil {
		return false, err
	}
	for _, one := range losses {
		fmt.Fprintln(out, "lost", one)
	}
	name := "soak-" + b.name + "-"
	ok := bench.Report(out, name+"lost", float64(lost), 0)
	ok = bench.Report(out, name+"fds-left", float64(v.left.files), float64(j.filesLeft)) && ok
	ok = bench.Report(out, name+"goroutines-left", float64(v.left.goroutines), float64(j.goroutinesLeft)) && ok
	if b.options.time >= judgeable {
		ok = bench.Report(out, name+"rss", worst.resident, 1) && ok
		ok = bench.Report(out, name+"fds", worst.files, 1) && ok
	}
	return ok, nil
}

// processes prints how those have fared that lived long, and returns the worst growth of the steady ones, by what is allowed.
func (v verdict) processes(w io.Writer, j judged) (worst sample) {
	fmt.Fprintln(w, "process\tlived\tMiB after warm-up\tat the end\tper hour\tfiles\tper hour")
	others, largest := 0, 0.0
	for _, p := range v.watch.seen() {
		s := warm(p.samples)
		memory, ok := growth(s, residentOf)
		files, _ := growth(s, filesOf)
		if !ok || span(p.samples) < v.loaded/4 {
			others, largest = others+1, max(largest, medianOf(s, residentOf))
			continue
		}
		first, last := s[0], s[len(s)-1]
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%+.1f\t%.0f … %.0f\t%+.1f\n", p, span(p.samples).Round(time.Second), first.resident/(1<<20), last.resident/(1<<20),
			memory/(1<<20), first.files, last.files, files)
		if slices.Contains(j.steady, p.program) {
			hours := span(s).Hours()
			worst.resident = max(worst.resident, memory*hours/max(memoryGrowth*hours, memorySway, memoryShare*medianOf(s, residentOf)))
			worst.files = max(worst.files, files*hours/max(filesGrowth*hours, filesSway, filesShare*medianOf(s, filesOf)))
		}
	}
	if others > 0 {
		fmt.Fprintf(w, "%d others, shorter\t\t%.1f at most\t\t\t\t\n", others, largest/(1<<20))
	}
	return worst
}

func residentOf(s sample) float64 { return s.resident }
func filesOf(s sample) float64    { return s.files }

// issued counts the certificates that the control plane has issued, over its replacements.
type issued struct {
	bed *bed

	mu     sync.Mutex     // guards the rest
	first  map[string]int // when it was first asked; 0 for those that came during the run
	latest map[string]int // by the pod
}

func newIssued(b *bed) *issued {
	return &issued{bed: b, first: map[string]int{}, latest: map[string]int{}}
}

func (i *issued) follow(ctx context.Context) {
	for begun := false; ; begun = true {
		pods, err := i.bed.status(ctx, meshNamespace, "istiod-")
		for _, p := range pods {
			n, metricErr := i.bed.metric(ctx, podRef{meshNamespace, p.Name, 15014, "/metrics"}, "citadel_server_success_cert_issuance_count")
			if err == nil && metricErr == nil {
				i.note(p.Name, int(n), begun)
			}
		}
		if !pause(ctx, counting) {
			return
		}
	}
}

func (i *issued) note(pod string, n int, begun bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, known := i.first[pod]; !known && !begun {
		i.first[pod] = n
	}
	i.latest[pod] = n
}

func (i *issued) total() (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for pod, latest := range i.latest {
		n += latest - i.first[pod]
	}
	return n
}
