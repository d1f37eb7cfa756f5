package productpage

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// resultCounter is the metric request_result_total: answers of the other
// services by service and status.
type resultCounter struct {
	mu     sync.Mutex
	counts map[resultKey]uint64 // guarded by mu
}

type resultKey struct {
	service string
	status  int
}

func newResultCounter() *resultCounter {
	return &resultCounter{counts: make(map[resultKey]uint64)}
}

func (c *resultCounter) add(service string, status int) {
	c.mu.Lock()
	c.counts[resultKey{service, status}]++
	c.mu.Unlock()
}

// ServeHTTP writes the metric in Prometheus' text format. It is one counter,
// so it is written by hand rather than with a client library.
func (c *resultCounter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	lines := make([]string, 0, len(c.counts))
	for k, n := range c.counts {
		lines = append(lines, fmt.Sprintf("request_result_total{destination_app=%q,response_code=\"%d\"} %d\n", k.service, k.status, n))
	}
	c.mu.Unlock()
	slices.Sort(lines)

	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintf(w, "# HELP request_result_total Results of requests to the other services\n"+
		"# TYPE request_result_total counter\n%s", strings.Join(lines, ""))
}
