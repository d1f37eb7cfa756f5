package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Readiness is ready once every task is done, and never again after the end was announced.
type Readiness struct {
	mu      sync.Mutex
	pending []string // guarded by mu
}

// NewReadiness waits for the tasks of the given names.
func NewReadiness(tasks ...string) *Readiness { return &Readiness{pending: slices.Clone(tasks)} }

// Done completes a task.
func (r *Readiness) Done(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.DeleteFunc(r.pending, func(p string) bool { return p == task })
}

// Block makes the proxy unready, for the given reason.
func (r *Readiness) Block(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, reason)
}

// Pending lists what is missing.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pending)
}

// ServeHTTP answers 200, or 500 with what is missing.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if pending := r.Pending(); len(pending) > 0 {
		http.Error(w, "not ready, pending: "+strings.Join(pending, ", "), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "ready")
}
