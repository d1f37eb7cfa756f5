package hbone

import (
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

// pinger finds peers that vanished: after 10 s of silence it sends a PING, and gives up when nothing at all
// came for 20 s more. It is a timer, not a goroutine. Guarded by conn.mu.
type pinger struct {
	timer *time.Timer
	seen  uint64    // conn.reads at the last tick
	sent  time.Time // of the unanswered PING; zero is none
	wrote uint64    // conn.writes at the last tick
	stuck time.Time // when a write was found that takes long; zero is none
	onAck func()    // called with conn.mu held when the drain PING is answered
}

// drainPing is the payload of the PING that measures when the peer saw our GOAWAY.
const drainPing = "isthmusG"

func (p *pinger) start(c *conn) {
	p.timer = time.AfterFunc(keepaliveInterval, func() { c.keepalive() })
}

func (p *pinger) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// acked handles a PING acknowledgement; called with conn.mu held.
func (p *pinger) acked(_ *conn, payload []byte) {
	if string(payload) == drainPing && p.onAck != nil {
		p.onAck()
		p.onAck = nil
	}
}

// keepalive is the timer's tick.
func (c *conn) keepalive() {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.halt.Load() || c.stopped {
		c.ping.timer.Reset(keepaliveInterval)
		c.mu.Unlock()
		return
	}
	reads := c.reads.Load()
	silent := reads == c.ping.seen
	c.ping.seen = reads
	stalled := c.ping.stalledLocked(c)
	var lost bool
	switch {
	case !silent:
		c.ping.sent = time.Time{}
	case c.ping.sent.IsZero():
		c.ping.sent = time.Now()
		c.reserve(64)
		c.out = h2.AppendPing(c.out, false, [8]byte([]byte("isthmusK")))
		c.flushAsync()
	default:
		lost = time.Since(c.ping.sent) >= keepaliveTimeout
	}
	c.ping.timer.Reset(keepaliveInterval)
	c.mu.Unlock()
	switch {
	case stalled:
		c.log.Debug("closing HBONE connection", "peer", c.nc.RemoteAddr(), "err", ErrStalled)
		c.fail(ErrStalled)
	case lost:
		c.fail(ErrPingTimeout)
	case silent:
		// Wakes the reader, which gives its large buffer back: see onIdle.
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// stalledLocked reports whether one write has lasted for as long as a peer may take, whatever else it sends meanwhile.
func (p *pinger) stalledLocked(c *conn) bool {
	same := c.writing && c.writes == p.wrote
	p.wrote = c.writes
	switch {
	case !same:
		p.stuck = time.Time{}
	case p.stuck.IsZero():
		p.stuck = time.Now()
	default:
		return time.Since(p.stuck) >= writeTimeout
	}
	return false
}
