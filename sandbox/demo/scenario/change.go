package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// manyCalls fetches from reviews until a file appears: one loop on connections that are kept, one on new ones.
const manyCalls = `rm -f /tmp/enough
call() { curl -s -o /dev/null --max-time 8 -w '%{http_code} %{time_total} %{errormsg}\n' "$1"; }
while [ ! -e /tmp/enough ]; do call 'http://reviews:9080/reviews/0?n=[1-50]'; done &
while [ ! -e /tmp/enough ]; do call http://reviews:9080/reviews/0; done
wait
echo end`

// load is a stream of calls.
type load struct {
	bed   *Bed
	stop  func() string
	lines func() string
	begin time.Time
}

func (b *Bed) startLoad(ctx context.Context) *load {
	stop, lines := b.background(ctx, inMesh, "bash", "-c", manyCalls)
	l := &load{bed: b, stop: stop, lines: lines, begin: time.Now()}
	_ = b.eventually(ctx, func() bool { return strings.Count(lines(), "\n") > 20 }) // the end counts them
	return l
}

// end lets the calls come to their end, and tells how many there were.
func (l *load) end(ctx context.Context) (string, error) {
	if _, err := l.bed.exec(ctx, inMesh, "touch", "/tmp/enough"); err != nil {
		return "", err
	}
	if err := l.bed.eventually(ctx, func() bool { return strings.HasSuffix(l.lines(), "end\n") }); err != nil {
		return "", expected("the calls to end", "%q", l.lines())
	}
	total, failed, slowest := tally(l.lines())
	if failed != "" || total < 50 {
		bad := 0
		for line := range strings.SplitSeq(l.lines(), "\n") {
			if line != "" && line != "end" && !strings.HasPrefix(line, "200 ") {
				bad++
			}
		}
		return "", expected("no failed request", "%d of %d, the first: %q", bad, total, failed)
	}
	return fmt.Sprintf("0 of %d requests failed (%.0f per second, the slowest took %s)", total, float64(total)/time.Since(l.begin).Seconds(), slowest), nil
}

// Change moves weights and replaces waypoints while requests are under way.
func (b *Bed) Change(ctx context.Context) {
	b.Report.Section("Changes under load")
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.sample(ctx, split); err != nil {
			return "", err
		}
		if err := b.only(ctx, []string{"v1", "v2"}); err != nil {
			return "", err
		}
		l := b.startLoad(ctx)
		defer l.stop()
		const changes = 20
		for i := range changes {
			weight := 100 * (i % 2)
			if i%4 > 1 {
				weight = 50
			}
			if err := b.weigh(ctx, weight); err != nil {
				return "", err
			}
			pause(ctx, retryPause)
		}
		since := time.Now()
		if err := b.weigh(ctx, 0); err != nil {
			return "", err
		}
		if err := b.only(ctx, []string{"v3"}); err != nil {
			return "", err
		}
		took := time.Since(since)
		counted, err := l.end(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("weights of reviews changed %d times: %s; 30 requests in a row all went by the last change %d ms after it", changes+1, counted, took.Milliseconds()), nil
	})
	b.takeBack(ctx, split)
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		l := b.startLoad(ctx)
		defer l.stop()
		old, err := b.waypoints(ctx)
		if err != nil {
			return "", err
		}
		begin := time.Now()
		if err := b.Sandbox.Restart(ctx, "Deployment", "default", "waypoint"); err != nil {
			return "", err
		}
		if err := b.waypointsAre(ctx, 1, old); err != nil {
			return "", err
		}
		took := time.Since(begin)
		counted, err := l.end(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("the waypoint replaced in %.1f s: %s", took.Seconds(), counted), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		l := b.startLoad(ctx)
		defer l.stop()
		begin := time.Now()
		for _, n := range []int{3, 1} {
			if err := b.Sandbox.Scale(ctx, "default", "waypoint", n); err != nil {
				return "", err
			}
			if err := b.waypointsAre(ctx, n, nil); err != nil {
				return "", err
			}
		}
		took := time.Since(begin)
		counted, err := l.end(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("the waypoint scaled from 1 to 3 and back to 1 in %.1f s: %s", took.Seconds(), counted), nil
	})
}

// FailClosed takes the waypoint away: nobody gets past it.
func (b *Bed) FailClosed(ctx context.Context) {
	b.Report.Section("The waypoint is down")
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if _, err := b.until(ctx, "reviews to answer", status(200), inMesh, reviewsURL); err != nil {
			return "", err
		}
		if err := b.Sandbox.Scale(ctx, "default", "waypoint", 0); err != nil {
			return "", err
		}
		if err := b.waypointsAre(ctx, 0, nil); err != nil {
			return "", err
		}
		since := time.Now()
		const calls = 10
		var last reply
		for range calls {
			r, err := b.fetch(ctx, inMesh, reviewsURL)
			if err != nil || r.status == 200 {
				return "", expected("no answer without the waypoint", "%s %v", r, err)
			}
			last = r
		}
		for _, version := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
			if n, err := b.logged(ctx, version, since, "path=/reviews"); err != nil || n > 0 {
				return "", expected("nothing to get past the waypoint", "%d requests at %s, %v", n, version, err)
			}
		}
		return fmt.Sprintf("without a waypoint none of %d calls reaches reviews (%s)", calls, last), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		since := time.Now()
		if err := b.Sandbox.Scale(ctx, "default", "waypoint", 1); err != nil {
			return "", err
		}
		if _, err := b.until(ctx, "reviews to answer", status(200), inMesh, reviewsURL); err != nil {
			return "", err
		}
		return fmt.Sprintf("%.1f s after it is wanted back calls are answered again", time.Since(since).Seconds()), nil
	})
}

// weigh sets the share of reviews v1, in percent; the rest is v3's.
func (b *Bed) weigh(ctx context.Context, v1 int) error {
	to := func(subset string, weight int) map[string]any {
		return map[string]any{"destination": map[string]any{"host": "reviews", "subset": subset}, "weight": weight}
	}
	routes := []any{map[string]any{"route": []any{to("v1", v1), to("v3", 100-v1)}}}
	return b.Sandbox.Patch(ctx, "VirtualService", "default", "reviews", map[string]any{"spec": map[string]any{"http": routes}})
}

// waypoints lists the waypoint's pods: those that are ready, those on their way, and those that are ending.
func (b *Bed) waypoints(ctx context.Context) (map[string]bool, error) {
	status, err := b.Sandbox.Status(ctx)
	if err != nil {
		return nil, err
	}
	ready := map[string]bool{}
	for _, p := range status.Pods {
		if p.Namespace == "default" && strings.HasPrefix(p.Name, "waypoint-") {
			ready[p.Name] = p.Ready && !p.Terminating
		}
	}
	return ready, nil
}

// waypointsAre waits until there are n, all ready and none of those of before.
func (b *Bed) waypointsAre(ctx context.Context, n int, old map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		now, err := b.waypoints(ctx)
		if err != nil {
			return err
		}
		all := len(now) == n && !shares(now, old)
		for _, ready := range now {
			all = all && ready
		}
		if all {
			return nil
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return expected(fmt.Sprintf("%d waypoints, all ready", n), "%v", now)
		}
	}
}
