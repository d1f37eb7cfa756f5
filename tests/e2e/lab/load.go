package lab

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Load is a stream of requests from a pod, one after the other, that goes on until it is stopped.
type Load struct {
	cancel  context.CancelFunc
	done    chan struct{}
	out     string
	trouble error // of stopping it
}

// Outcome counts the requests of a load.
type Outcome struct {
	Requests, Failed int
	// Failures are the first few, as they were printed.
	Failures []string
}

func (o Outcome) String() string {
	return fmt.Sprintf("%d of %d requests failed %v", o.Failed, o.Requests, o.Failures)
}

// loadScript asks again and again, each time on a connection of its own, and prints a line a request. It goes on until it is told to
// stop and has made enough requests to say something, or for too long.
const loadScript = `n=0; end=$(($(date +%%s)+600)); while [ $(date +%%s) -lt $end ] && { [ ! -e %[1]s ] || [ $n -lt 25 ]; }; do n=$((n+1))
r=$(curl -sS -o /dev/null -m 5 -w '%%{http_code}' %[2]s 2>&1) && [ "$r" = 200 ] && echo ok || echo "failed: $r"
sleep 0.02; done; rm -f %[1]s`

// StartLoad puts load on a URL from a pod that has curl and sh.
func (c *Cluster) StartLoad(ctx context.Context, namespace, pod, url string) *Load {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	stop := fmt.Sprintf("/tmp/stop-%d", time.Now().UnixNano())
	l := &Load{done: make(chan struct{})}
	script := fmt.Sprintf(loadScript, stop, url)
	l.cancel = func() {
		defer cancel()
		// The loop ends after its last request; only then is all of its output here.
		stopping, done := context.WithTimeout(ctx, time.Minute)
		defer done()
		l.trouble = Eventually(stopping, "the load is told to stop", func(ctx context.Context) error {
			_, err := c.Exec(ctx, namespace, pod, "sh", "-c", ": > "+stop)
			return err
		})
		select {
		case <-l.done:
		case <-time.After(time.Minute):
		}
	}
	go func() {
		defer close(l.done)
		out, err := c.Exec(ctx, namespace, pod, "sh", "-c", script)
		if err != nil && ctx.Err() == nil {
			out += "\nfailed: " + err.Error()
		}
		l.out = out
	}()
	return l
}

// Stop ends the load and says what became of its requests.
func (l *Load) Stop() Outcome {
	l.cancel()
	<-l.done
	var o Outcome
	if l.trouble != nil {
		o.Failures = append(o.Failures, l.trouble.Error())
	}
	for line := range strings.SplitSeq(l.out, "\n") {
		switch {
		case line == "ok":
			o.Requests++
		case strings.HasPrefix(line, "failed"):
			o.Requests++
			if o.Failed++; len(o.Failures) < 5 {
				o.Failures = append(o.Failures, line)
			}
		}
	}
	return o
}
