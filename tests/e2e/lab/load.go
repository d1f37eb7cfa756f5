package lab

import (
	"context"
	"fmt"
	"strconv"
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
	// Lost is when these began and how long they took, as far as that is known.
	Lost []Lost
}

// Lost is one request that failed.
type Lost struct {
	// Begin is cut to whole seconds, by the clock of the pod's node.
	Begin time.Time
	// Took is until it was given up.
	Took time.Duration
	// Line is as it was printed.
	Line string
}

func (o Outcome) String() string {
	return fmt.Sprintf("%d of %d requests failed %v", o.Failed, o.Requests, o.Failures)
}

// loadScript asks again and again, each time on a connection of its own, and prints a line a request: of one that failed since when, why,
// and how far it came: the seconds until the name was resolved, the connection there, the first byte of the answer received, and the end,
// 0 for what never was. It goes on until it is told to stop and has made enough requests to say something, or for too long.
const loadScript = `n=0; end=$(($(date +%%s)+600)); while [ $(date +%%s) -lt $end ] && { [ ! -e %[1]s ] || [ $n -lt 25 ]; }; do n=$((n+1)); at=$(date +%%s)
r=$(curl -sS -o /dev/null -m 5 -w '%%{http_code} from %%{local_ip}:%%{local_port} resolved=%%{time_namelookup} connected=%%{time_connect} answered=%%{time_starttransfer} took=%%{time_total}' %[2]s 2>&1) && [ "${r%%%% *}" = 200 ] && echo ok || echo "failed at=$at:" $r
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
	o := outcomeOf(l.out)
	if l.trouble != nil {
		o.Failures = append([]string{l.trouble.Error()}, o.Failures...)
	}
	return o
}

// outcomeOf reads what loadScript prints.
func outcomeOf(printed string) (o Outcome) {
	for line := range strings.SplitSeq(printed, "\n") {
		switch {
		case line == "ok":
			o.Requests++
		case strings.HasPrefix(line, "failed"):
			o.Requests++
			if o.Failed++; len(o.Failures) < 5 {
				o.Failures = append(o.Failures, line)
				if lost, ok := lostBy(line); ok {
					o.Lost = append(o.Lost, lost)
				}
			}
		}
	}
	return o
}

func lostBy(line string) (Lost, bool) {
	lost := Lost{Line: line}
	for field := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "at":
			if seconds, err := strconv.ParseInt(strings.TrimSuffix(value, ":"), 10, 64); err == nil {
				lost.Begin = time.Unix(seconds, 0)
			}
		case "took":
			if seconds, err := strconv.ParseFloat(value, 64); err == nil {
				lost.Took = time.Duration(seconds * float64(time.Second))
			}
		}
	}
	return lost, !lost.Begin.IsZero()
}

// Around is what pods have logged while the lost requests were under way, and a little before and after.
func (o Outcome) Around(j *Journal) string {
	const margin = 2 * time.Second
	var out strings.Builder
	for _, lost := range o.Lost {
		fmt.Fprintf(&out, "%s\n%s", lost.Line, j.Between(lost.Begin.Add(-margin), lost.Begin.Add(lost.Took+margin)))
	}
	return out.String()
}
