package upstream

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// pool2 is the HTTP/2 connections to a host. Another one is made when the others are full.
type pool2 struct {
	host *Host

	mu      sync.Mutex // guards the rest
	conns   []*conn
	dialing *dialing
}

// dialing is a connection being made, for all who wait for it.
type dialing struct {
	done chan struct{}
	err  error // valid after done
}

func (p *pool2) acquire(ctx context.Context, conf *l7.Cluster) (*conn, error) {
	g, stats := &p.host.cluster.gauges, &p.host.cluster.stats
	pending := false
	for {
		p.mu.Lock()
		for _, c := range p.conns {
			if c.cc.Free() > 0 && !c.worn() {
				c.users++
				p.mu.Unlock()
				if pending {
					g.pending.give()
				}
				return c, nil
			}
		}
		if !pending {
			stats.rqPendingTotal.Add(1)
			if !g.pending.take(conf.Breakers.MaxPending) {
				p.mu.Unlock()
				stats.rqPendingOverflow.Add(1)
				return nil, &Error{Reason: Overflow, Unsent: true, Err: errOverflow}
			}
			pending = true
		}
		d, err := p.dialLocked(conf)
		p.mu.Unlock()
		if err == nil {
			select {
			case <-d.done:
				err = d.err
			case <-ctx.Done():
				err = &Error{Reason: LocalReset, Unsent: true, Err: context.Cause(ctx)}
			}
		}
		if err != nil {
			g.pending.give()
			return nil, err
		}
	}
}

// dialLocked joins the connection being made, or begins one.
func (p *pool2) dialLocked(conf *l7.Cluster) (*dialing, error) {
	if p.dialing != nil {
		return p.dialing, nil
	}
	g := &p.host.cluster.gauges.connections
	if len(p.conns) == 0 {
		g.force()
	} else if !g.take(conf.Breakers.MaxConnections) {
		p.host.cluster.stats.cxOverflow.Add(1)
		return nil, &Error{Reason: Overflow, Unsent: true, Err: errOverflow}
	}
	d := &dialing{done: make(chan struct{})}
	p.dialing = d
	m := p.host.cluster.manager
	m.work.Go(func() { // shared by all who wait, so it lives as long as the manager
		c, err := p.host.connect(m.ctx, true)
		p.mu.Lock()
		p.dialing = nil
		if err == nil {
			p.conns = append(p.conns, c)
		}
		p.mu.Unlock()
		if err != nil {
			g.give()
			d.err = err
		}
		close(d.done)
		if err != nil {
			return
		}
		if !p.host.keeps(c) {
			p.retire()
		}
		p.reapWhenIdle(c)
		p.forget(c)
	})
	return d, nil
}

// reapWhenIdle returns when the connection takes no more requests, or has carried none for too long.
func (p *pool2) reapWhenIdle(c *conn) {
	limit := idleOf(p.host.cluster.Config())
	ticker := time.NewTicker(limit)
	defer ticker.Stop()
	for before := uint32(0); ; {
		select {
		case <-c.cc.Done():
			return
		case <-ticker.C:
			if now := c.requests.Load(); now != before {
				before = now
			} else if c.cc.Active() == 0 {
				return
			}
		}
	}
}

// forget takes a connection out; it ends when nobody uses it any more.
func (p *pool2) forget(c *conn) {
	p.mu.Lock()
	p.conns = slices.DeleteFunc(p.conns, func(o *conn) bool { return o == c })
	unused := c.users == 0
	p.mu.Unlock()
	if unused {
		c.close()
	}
}

// release is called after each request.
func (p *pool2) release(c *conn) {
	p.mu.Lock()
	c.users--
	unused := c.users == 0
	if unused {
		if i := slices.Index(p.conns, c); i >= 0 {
			if unused = c.worn() || c.cc.Free() == 0; unused {
				p.conns = slices.Delete(p.conns, i, i+1)
			}
		}
	}
	p.mu.Unlock()
	if unused {
		c.close()
	}
}

// retire takes all connections out.
func (p *pool2) retire() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		p.forget(c)
	}
}
