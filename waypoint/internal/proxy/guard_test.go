package proxy

import (
	"testing"
	"time"
)

// hung is a client whose reading is interrupted, which makes its connection look as if it had gone, as over HTTP/1.1.
type hung struct {
	gone                chan struct{}
	interrupted, resets int
}

func (h *hung) Gone() <-chan struct{} { return h.gone }
func (h *hung) Interrupt()            { h.interrupted++ }
func (h *hung) Reset(uint32)          { h.resets++ }

// What reading a request that stops leads to, once it is interrupted, does not end the reply that says why: also when it is noticed late.
func TestAnInterruptedClientIsNotGone(t *testing.T) {
	client := &hung{gone: make(chan struct{})}
	g := newGuard()
	defer g.timer.Stop()
	g.begin(t.Context(), client, time.Now())
	g.waitFor(waitsBody)
	g.abort(causeIdle)
	if client.interrupted != 1 || g.aborted() != causeIdle {
		t.Fatalf("interrupted %d times, for %v", client.interrupted, g.aborted())
	}
	over := make(chan struct{})
	g.mu.Lock()
	g.over = over
	g.mu.Unlock()
	g.replies()
	close(client.gone)
	g.watch(client.gone, over)
	if client.resets != 0 || g.aborted() != causeNone {
		t.Errorf("the reply is ended: %d resets, for %v", client.resets, g.aborted())
	}
	g.end()

	// One that goes away by itself does.
	client = &hung{gone: make(chan struct{})}
	g.begin(t.Context(), client, time.Now())
	over = make(chan struct{})
	g.mu.Lock()
	g.over = over
	g.mu.Unlock()
	g.replies()
	close(client.gone)
	g.watch(client.gone, over)
	if client.resets != 1 || g.aborted() != causeGone {
		t.Errorf("a client that is gone: %d resets, for %v", client.resets, g.aborted())
	}
	g.end()
}
