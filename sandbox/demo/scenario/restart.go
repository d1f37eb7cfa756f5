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

// Restart replaces the ztunnels while connections are opened and others are open.
func (b *Bed) Restart(ctx context.Context) {
	b.Report.Section("Replace every ztunnel under load")
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/curl", "http://details:9080/details/0", "author"); err != nil {
			return "", err
		}
		old, err := b.proxyNames(ctx)
		if err != nil {
			return "", err
		}
		open, err := b.converse(ctx, "default/deploy/curl", "tcp-echo.default.svc.cluster.local")
		if err != nil {
			return "", err
		}
		defer open.stop()
		stop, lines := b.background(ctx, "default/deploy/curl", "bash", "-c", calls)
		defer stop()
		begin := time.Now()
		if err := b.Sandbox.Restart(ctx, "DaemonSet", meshNamespace, "ztunnel"); err != nil {
			return "", err
		}
		overlap := 0
		replaced := false
		for deadline := time.Now().Add(2 * time.Minute); !replaced && time.Now().Before(deadline); {
			now, err := b.proxyNames(ctx)
			if err != nil {
				return "", err
			}
			overlap = max(overlap, len(now)-len(old))
			replaced = len(now) == len(old) && !shares(now, old)
			pause(ctx, retryPause)
		}
		took := time.Since(begin)
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
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		line, err := b.drained(ctx)
		if err != nil {
			return "", err
		}
		return line, nil
	})
}

// drained shows how a connection that is open at a ztunnel's end goes on in its grace period, and is then ended.
func (b *Bed) drained(ctx context.Context) (string, error) {
	client, err := b.pod(ctx, "default", "curl")
	if err != nil {
		return "", err
	}
	open, err := b.converse(ctx, "default/deploy/curl", "tcp-echo.default.svc.cluster.local")
	if err != nil {
		return "", err
	}
	defer open.stop()
	begin := time.Now()
	if err := b.Sandbox.Restart(ctx, "DaemonSet", meshNamespace, "ztunnel"); err != nil {
		return "", err
	}
	terminating := func() bool {
		status, err := b.Sandbox.Status(ctx)
		if err != nil {
			return false
		}
		for _, p := range status.Pods {
			if p.Namespace == meshNamespace && strings.HasPrefix(p.Name, "ztunnel-") && p.Node == client.Node && p.Terminating {
				return true
			}
		}
		return false
	}
	if err := b.eventually(ctx, terminating); err != nil {
		return "", expected("the old ztunnel of "+client.Node+" to be ending", "it was not")
	}
	asked := time.Now()
	if err := b.alive(ctx, open); err != nil {
		return "", fmt.Errorf("in the grace period: %w", err)
	}
	lived := time.Since(asked)
	_ = begin
	return fmt.Sprintf("a connection open when its ztunnel was told to end still answered %.1f s later: it drains in the grace period", lived.Seconds()), nil
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
