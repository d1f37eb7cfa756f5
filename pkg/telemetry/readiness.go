package telemetry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Readiness is what a process waits for before it is ready, and what makes it unready again. Safe for concurrent use.
type Readiness struct {
	unready int

	mu      sync.Mutex // guards pending
	pending []string
}

// NewReadiness waits for the tasks of the given names; until they are done, HTTP requests are answered with the status unready.
func NewReadiness(unready int, tasks ...string) *Readiness {
	return &Readiness{unready: unready, pending: slices.Clone(tasks)}
}

// Done completes a task, or takes a reason of Block back.
func (r *Readiness) Done(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.DeleteFunc(r.pending, func(p string) bool { return p == task })
}

// Block makes the process unready, for the given reason.
func (r *Readiness) Block(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.pending, reason) {
		r.pending = append(r.pending, reason)
	}
}

// Pending lists what is missing.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pending)
}

// ServeHTTP answers 200, or the status of NewReadiness with what is missing.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if pending := r.Pending(); len(pending) > 0 {
		http.Error(w, "not ready, pending: "+strings.Join(pending, ", "), r.unready)
		return
	}
	fmt.Fprintln(w, "ready")
}
