package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// calls fetches a page over and over, each time on a new connection, until a file appears; one line for each call.
const calls = `rm -f /tmp/enough
while [ ! -e /tmp/enough ]; do
  curl -s -o /dev/null --max-time 8 -w '%{http_code} %{time_total} %{errormsg}\n' http://details:9080/details/0
done
echo end`

// Drain replaces the ztunnels, by instances that take nothing over, while connections are opened and others are open.
func (b *Bed) Drain(ctx context.Context) {
	b.Report.Section("Replace every ztunnel without hand-over (ENABLE_HANDOVER=false)")
	var open *drainWatch
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/curl", "http://details:9080/details/0", "author"); err != nil {
			return "", err
		}
		old, err := b.proxyNames(ctx)
		if err != nil {
			return "", err
		}
		talk, err := b.converse(ctx, "default/deploy/curl", "tcp-echo.default.svc.cluster.local")
		if err != nil {
			return "", err
		}
		defer talk.stop()
		open = &drainWatch{talk: talk}
		ends, err := b.nodesOf(ctx, "curl", "tcp-echo")
		if err != nil {
			return "", err
		}
		stop, lines := b.background(ctx, "default/deploy/curl", "bash", "-c", calls)
		defer stop()
		begin := time.Now()
		if err := b.Sandbox.SetEnv(ctx, "DaemonSet", meshNamespace, "ztunnel", map[string]string{"ENABLE_HANDOVER": "false"}); err != nil {
			return "", err
		}
		overlap := 0
		replaced := false
		for deadline := time.Now().Add(2 * time.Minute); !replaced && time.Now().Before(deadline); {
			now, err := b.proxyNames(ctx)
			if err != nil {
				return "", err
			}
			terminating, err := b.proxyEnds(ctx, ends)
			if err != nil {
				return "", err
			}
			open.look(terminating)
			overlap = max(overlap, len(now)-len(old))
			replaced = len(now) == len(old) && !shares(now, old)
			pause(ctx, retryPause)
		}
		took := time.Since(begin)
		_ = b.eventually(ctx, func() bool { open.look(false); return !open.ended.IsZero() }) // its outcome says whether it did
		if !replaced {
			return "", expected("all ztunnels replaced", "still the old ones after %s", took)
		}
		if _, err := b.exec(ctx, "default/deploy/curl", "touch", "/tmp/enough"); err != nil {
			return "", err
		}
		if err := b.eventually(ctx, func() bool { return strings.HasSuffix(lines(), "end\n") }); err != nil {
			return "", expected("the calls to end", "%q", lines())
		}
		total, failed, slowest := tally(lines())
		if failed != "" || total < 20 || overlap < 1 {
			return "", expected("0 failed connections with old and new ztunnels overlapping", "%d connections, first failure %q, overlap %d", total, failed, overlap)
		}
		return fmt.Sprintf("both ztunnels replaced in %.1f s, old and new overlapping: 0 of %d new connections failed, the slowest took %s", took.Seconds(), total, slowest), nil
	})
	b.Report.Check(ctx, func(context.Context) (string, error) {
		if open == nil {
			return "", expected("a connection open from before", "none")
		}
		return open.outcome()
	})
}

// drainWatch follows a connection that is open when its ztunnel is told to end.
type drainWatch struct {
	talk        *conversation
	told, ended time.Time // zero until then
	atTold      int       // answers until then
	answers     int       // since then
}

// look takes note of what has happened since the last look.
func (d *drainWatch) look(terminating bool) {
	if d.told.IsZero() && terminating {
		d.told, d.atTold = time.Now(), d.talk.answers()
	}
	if !d.told.IsZero() && d.ended.IsZero() {
		d.answers = d.talk.answers() - d.atTold
		if strings.Contains(d.talk.lines(), "LOST") {
			d.ended = time.Now()
		}
	}
}

// gracePeriod is ztunnel's, of which it keeps a margin for itself.
const gracePeriod = 30 * time.Second

func (d *drainWatch) outcome() (string, error) {
	switch {
	case d.told.IsZero():
		return "", expected("its ztunnel to be told to end", "it was not")
	case d.answers < 10:
		return "", expected("the open connection to go on while its ztunnel drains", "%d answers", d.answers)
	case d.ended.IsZero() || d.ended.Sub(d.told) > gracePeriod:
		return "", expected("the open connection to end within the grace period of "+gracePeriod.String(), "it goes on")
	}
	return fmt.Sprintf("a connection open before went on while its old ztunnel drained: %d more answers, until that ended after %.1f s of its %.0f s of grace",
		d.answers, d.ended.Sub(d.told).Seconds(), gracePeriod.Seconds()), nil
}

// proxyNames lists the ztunnel pods, by name.
func (b *Bed) proxyNames(ctx context.Context) (map[string]bool, error) {
	status, err := b.Sandbox.Status(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, p := range status.Pods {
		if p.Namespace == meshNamespace && strings.HasPrefix(p.Name, "ztunnel-") {
			names[p.Name] = true
		}
	}
	return names, nil
}

// nodesOf are the nodes that apps of namespace default run on.
func (b *Bed) nodesOf(ctx context.Context, apps ...string) (map[string]bool, error) {
	nodes := map[string]bool{}
	for _, app := range apps {
		p, err := b.pod(ctx, "default", app)
		if err != nil {
			return nil, err
		}
		nodes[p.Node] = true
	}
	return nodes, nil
}

// proxyEnds tells whether the ztunnel of one of the nodes has been told to end.
func (b *Bed) proxyEnds(ctx context.Context, nodes map[string]bool) (bool, error) {
	status, err := b.Sandbox.Status(ctx)
	if err != nil {
		return false, err
	}
	for _, p := range status.Pods {
		if p.Namespace == meshNamespace && strings.HasPrefix(p.Name, "ztunnel-") && nodes[p.Node] && p.Terminating {
			return true, nil
		}
	}
	return false, nil
}

func shares(a, b map[string]bool) bool {
	for name := range a {
		if b[name] {
			return true
		}
	}
	return false
}

// tally counts calls; failed is the first line that is no success.
func tally(lines string) (total int, failed, slowest string) {
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		if line == "end" {
			continue
		}
		total++
		code, rest, _ := strings.Cut(line, " ")
		if code != "200" && failed == "" {
			failed = line
		}
		seconds, _, _ := strings.Cut(rest, " ")
		slowest = max(slowest, seconds) // all have one digit before the point
	}
	return total, failed, slowest + " s"
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
