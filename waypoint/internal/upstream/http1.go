package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// defaultIdle is how long connections are kept where the cluster does not say.
const defaultIdle = time.Hour

// pool1 is the HTTP/1 connections to a host: those that are idle, and those who wait for one.
type pool1 struct {
	host *Host

	mu      sync.Mutex // guards the rest
	idle    []*conn    // the one used last is at the end, and is taken first
	open    int        // connections, those being made included
	waiting []*waiter  // in the order in which they came
	reaper  *time.Timer
}

// waiter gets a connection, or the permission (nil) to make one.
type waiter struct{ ready chan *conn }

func (p *pool1) acquire(ctx context.Context, conf *l7.Cluster) (*conn, error) {
	g, stats := &p.host.cluster.gauges, &p.host.cluster.stats
	p.mu.Lock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.cc.Free() > 0 && !c.worn() {
			p.mu.Unlock()
			return c, nil
		}
		p.open--
		p.mu.Unlock()
		c.close()
		p.mu.Lock()
	}
	stats.rqPendingTotal.Add(1)
	if !g.pending.take(conf.Breakers.MaxPending) {
		p.mu.Unlock()
		stats.rqPendingOverflow.Add(1)
		return nil, &Error{Reason: Overflow, Unsent: true, Err: errOverflow}
	}
	defer g.pending.give()
	if p.permitLocked(conf) {
		p.mu.Unlock()
		return p.make(ctx)
	}
	stats.cxOverflow.Add(1)
	w := &waiter{ready: make(chan *conn, 1)}
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	select {
	case c := <-w.ready:
		if c != nil {
			return c, nil
		}
		return p.make(ctx)
	case <-ctx.Done():
		p.desert(w)
		return nil, &Error{Reason: LocalReset, Unsent: true, Err: context.Cause(ctx)}
	}
}

// permitLocked is whether another connection may be made: one may in any case, lest requests wait for ever.
func (p *pool1) permitLocked(conf *l7.Cluster) bool {
	g := &p.host.cluster.gauges.connections
	switch {
	case p.open == 0:
		g.force()
	case conf.Breakers.PerHostMaxConns > 0 && p.open >= int(conf.Breakers.PerHostMaxConns):
		return false
	case !g.take(conf.Breakers.MaxConnections):
		return false
	}
	p.open++
	return true
}

// desert takes back a wait; what was given meanwhile goes to the next.
func (p *pool1) desert(w *waiter) {
	p.mu.Lock()
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	if c := <-w.ready; c != nil {
		p.release(c)
	} else {
		p.host.cluster.gauges.connections.give()
		p.lost()
	}
}

// make opens a connection whose place was taken before.
func (p *pool1) make(ctx context.Context) (*conn, error) {
	c, err := p.host.connect(ctx, false)
	if err != nil {
		p.host.cluster.gauges.connections.give()
		p.lost()
		return nil, err
	}
	return c, nil
}

// lost is called when a connection is no more: who waits may make another one.
func (p *pool1) lost() {
	conf := p.host.cluster.Config()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	if len(p.waiting) > 0 && p.permitLocked(conf) {
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.ready <- nil
	}
}

// release takes a connection back after a request.
func (p *pool1) release(c *conn) {
	if c.cc.Free() == 0 || c.worn() || !p.host.keeps(c) {
		c.close()
		p.lost()
		return
	}
	p.mu.Lock()
	if len(p.waiting) > 0 {
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.ready <- c
		p.mu.Unlock()
		return
	}
	c.since = time.Now()
	p.idle = append(p.idle, c)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(idleOf(p.host.cluster.Config()), p.reap)
	}
	p.mu.Unlock()
	if !p.host.keeps(c) {
		p.closeIdle() // the host was retired since we asked
	}
}

func idleOf(conf *l7.Cluster) time.Duration {
	if conf.Idle > 0 {
		return conf.Idle
	}
	return defaultIdle
}

// reap closes what was idle for too long.
func (p *pool1) reap() {
	limit := idleOf(p.host.cluster.Config())
	p.mu.Lock()
	old := 0
	for old < len(p.idle) && time.Since(p.idle[old].since) >= limit {
		old++
	}
	reaped := slices.Clone(p.idle[:old])
	p.idle = slices.Delete(p.idle, 0, old)
	p.open -= old
	if p.reaper = nil; len(p.idle) > 0 {
		p.reaper = time.AfterFunc(max(limit-time.Since(p.idle[0].since), time.Second/10), p.reap)
	}
	p.mu.Unlock()
	for _, c := range reaped {
		c.close()
	}
}

func (p *pool1) closeIdle() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.open -= len(idle)
	if p.reaper != nil {
		p.reaper.Stop()
		p.reaper = nil
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}

func (h *Host) describe() string { return fmt.Sprintf("%s of %s", h.address, h.cluster.name) }
