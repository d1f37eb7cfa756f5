package cluster

import (
	"log/slog"
	"sync"
)

// health tells the log once when the API server stops to answer, and once when all kinds are read again. It is used by the
// followers' goroutines.
type health struct {
	log *slog.Logger

	// guarded by mu
	mu   sync.Mutex
	down map[string]bool // resources that cannot be read
}

func newHealth(log *slog.Logger) *health { return &health{log: log, down: map[string]bool{}} }

// lost is called on each failure.
func (h *health) lost(resource string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.down) == 0 {
		h.log.Warn("cannot read from the API server; what was read stays, and it is tried again", "resource", resource, "error", err)
	}
	h.down[resource] = true
}

// refused is called when the API server does not allow to read.
func (h *health) refused(resource string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down[resource] {
		h.log.Error("the API server does not allow to read", "resource", resource, "error", err)
	}
	h.down[resource] = true
}

// found is called whenever something was read.
func (h *health) found(resource string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down[resource] {
		return
	}
	if delete(h.down, resource); len(h.down) == 0 {
		h.log.Info("everything is read from the API server again")
	}
}

// forget is called when a resource is not read any more, whether it could be or not.
func (h *health) forget(resource string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.down, resource)
}
