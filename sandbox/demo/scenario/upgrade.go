package scenario

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// conversations are open while ztunnels are upgraded.
const conversations = 8

// talk keeps one connection open until a file appears, and says something on it fifty times a second; a line for each answer has the
// microseconds that it took.
const talk = `exec 3<>/dev/tcp/%s/9000 || exit 1
i=0
while [ ! -e /tmp/upgraded ]; do
  i=$((i+1)); asked=${EPOCHREALTIME/[.,]/}
  echo "ping $i" >&3 || { echo "LOST write $i"; exit 1; }
  IFS= read -r -t 20 line <&3 || { echo "LOST read $i"; exit 1; }
  echo $((${EPOCHREALTIME/[.,]/} - asked)); sleep 0.02
done
echo end`

// Upgrade replaces the ztunnels, by instances to which they hand over what is open.
func (b *Bed) Upgrade(ctx context.Context) {
	b.Report.Section("Replace every ztunnel under load")
	var since time.Time
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if _, err := b.exec(ctx, "default/deploy/curl", "rm", "-f", "/tmp/upgraded", "/tmp/enough"); err != nil {
			return "", err
		}
		var open []func() string
		for range conversations {
			stop, lines := b.background(ctx, "default/deploy/curl", "bash", "-c", fmt.Sprintf(talk, "tcp-echo.default.svc.cluster.local"))
			defer stop()
			if err := b.eventually(ctx, func() bool { return strings.Count(lines(), "\n") >= 2 }); err != nil {
				return "", expected("an open connection", "%q", lines())
			}
			open = append(open, lines)
		}
		stop, fresh := b.background(ctx, "default/deploy/curl", "bash", "-c", calls)
		defer stop()
		since = time.Now()
		if err := b.replacing(ctx, func(ctx context.Context) error { return b.Sandbox.Restart(ctx, "DaemonSet", meshNamespace, "ztunnel") }); err != nil {
			return "", err
		}
		took := time.Since(since)
		if _, err := b.exec(ctx, "default/deploy/curl", "touch", "/tmp/upgraded", "/tmp/enough"); err != nil {
			return "", err
		}
		var answers int
		var longest time.Duration
		for _, lines := range append(open, fresh) {
			if err := b.eventually(ctx, func() bool { return strings.HasSuffix(lines(), "end\n") || strings.Contains(lines(), "LOST") }); err != nil {
				return "", expected("connections to end", "%q", lines())
			}
		}
		for n, lines := range open {
			count, slowest, err := trips(lines())
			if err != nil {
				return "", fmt.Errorf("connection %d of %d: %w", n+1, conversations, err)
			}
			answers, longest = answers+count, max(longest, slowest)
		}
		total, failed, slowest := tally(fresh())
		if failed != "" {
			return "", expected("0 failed connections", "%d connections, first failure %q", total, failed)
		}
		return fmt.Sprintf("both ztunnels replaced in %.1f s: 0 of %d open connections dropped, %d answers, the longest gap %d ms; 0 of %d new connections failed, the slowest took %s",
			took.Seconds(), conversations, answers, longest.Milliseconds(), total, slowest), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if _, err := b.findLog(ctx, since, "an old instance has handed over", "refused=0"); err != nil {
			return "", err
		}
		return "the new ztunnel has taken over all that it was offered", nil
	})
}

// trips reads the lines of a talk.
func trips(lines string) (count int, slowest time.Duration, err error) {
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		if line == "end" {
			continue
		}
		micros, err := strconv.Atoi(line)
		if err != nil {
			return count, slowest, expected("the open connection to go on", "%q after %d answers", line, count)
		}
		count++
		slowest = max(slowest, time.Duration(micros)*time.Microsecond)
	}
	return count, slowest, nil
}

// replacing returns when all ztunnels are others than before change, and those are gone.
func (b *Bed) replacing(ctx context.Context, change func(context.Context) error) error {
	old, err := b.proxyNames(ctx)
	if err != nil {
		return err
	}
	if err := change(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		now, err := b.proxyNames(ctx)
		if err != nil {
			return err
		}
		if len(now) == len(old) && !shares(now, old) {
			return nil
		}
		pause(ctx, retryPause)
	}
	return expected("all ztunnels replaced", "still the old ones")
}
