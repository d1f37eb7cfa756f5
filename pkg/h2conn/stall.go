package h2conn

import "time"

// stall finds peers that do not read, however lively they are otherwise: who writes would wait for ever, and with it all who queue
// behind it, the end of an idle connection included. Its timer runs only while there are writes, and is not touched by each of them.
// Guarded by conn.mu.
type stall struct {
	timer  *time.Timer // nil before the first write
	armed  bool
	writes uint64 // begun
	seen   uint64 // writes at the last tick
}

func (p *stall) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// beginWrite notes that a write is about to begin. Called with mu held.
func (c *conn) beginWrite() {
	p := &c.stall
	p.writes++
	if p.armed || c.err != nil {
		return
	}
	p.armed, p.seen = true, p.writes
	if p.timer == nil {
		p.timer = time.AfterFunc(c.opt.WriteTimeout, c.onStall)
	} else {
		p.timer.Reset(c.opt.WriteTimeout)
	}
}

// onStall is the timer's tick.
func (c *conn) onStall() {
	if c.stalled() {
		c.opt.Log.Debug("closing HTTP/2 connection", "peer", c.nc.RemoteAddr(), "err", errStalled)
		c.fail(errStalled)
	}
}

// stalled is whether the write of the last tick still lasts.
func (c *conn) stalled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.stall
	p.armed = c.writing && c.err == nil
	if !p.armed {
		return false
	}
	if p.writes == p.seen {
		return true
	}
	p.seen = p.writes
	p.timer.Reset(c.opt.WriteTimeout)
	return false
}
