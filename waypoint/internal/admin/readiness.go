package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Readiness is ready once every task is done, unless it was made to fail, and never again after the end was announced.
type Readiness struct {
	mu       sync.Mutex // guards the rest
	pending  []string
	failing  bool
	draining bool
}

// NewReadiness waits for the tasks of the given names.
func NewReadiness(tasks ...string) *Readiness { return &Readiness{pending: slices.Clone(tasks)} }

// Done completes a task.
func (r *Readiness) Done(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.DeleteFunc(r.pending, func(p string) bool { return p == task })
}

// Fail makes the proxy unready by request of a person, or undoes that.
func (r *Readiness) Fail(fail bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failing = fail
}

// End announces the end.
func (r *Readiness) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// Pending lists what is missing.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.pending)
	if r.failing {
		out = append(out, "failed by /healthcheck/fail")
	}
	if r.draining {
		out = append(out, "shutting down")
	}
	return out
}

// Draining is whether the proxy is ending.
func (r *Readiness) Draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining || r.failing
}

// ServeHTTP answers 200, or 503 with what is missing.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if pending := r.Pending(); len(pending) > 0 {
		http.Error(w, "not ready, pending: "+strings.Join(pending, ", "), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
