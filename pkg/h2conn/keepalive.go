package h2conn

import (
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

// pinger finds peers that vanished: after some silence it sends a PING, and gives up when nothing at all came for some time more.
// It is a timer, not a goroutine. Guarded by conn.mu.
type pinger struct {
	timer *time.Timer // nil: off
	seen  uint64      // conn.reads at the last tick
	sent  time.Time   // of the unanswered PING; zero is none
	onAck func()      // called with conn.mu held when the drain PING is answered
}

// The payloads of our PINGs. That of a drain measures when the peer saw our GOAWAY.
const (
	drainPing     = "isthmusG"
	keepalivePing = "isthmusK"
)

func (p *pinger) start(c *conn) {
	if c.opt.KeepaliveInterval > 0 {
		p.timer = time.AfterFunc(c.opt.KeepaliveInterval, c.keepalive)
	}
}

func (p *pinger) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// acked handles a PING acknowledgement; called with conn.mu held.
func (p *pinger) acked(payload []byte) {
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
	reads := c.reads.Load()
	silent := reads == c.ping.seen
	c.ping.seen = reads
	next := c.opt.KeepaliveInterval
	var lost bool
	switch {
	case !silent:
		c.ping.sent = time.Time{}
	case c.ping.sent.IsZero():
		c.ping.sent = time.Now()
		c.reserve(64)
		c.out = h2.AppendPing(c.out, false, [8]byte([]byte(keepalivePing)))
		c.flushAsync()
		next = min(next, c.opt.KeepaliveTimeout)
	default:
		left := c.opt.KeepaliveTimeout - time.Since(c.ping.sent)
		lost = left <= 0
		next = min(next, max(left, time.Millisecond))
	}
	c.ping.timer.Reset(next)
	c.mu.Unlock()
	switch {
	case lost:
		c.fail(errPingTimeout)
	case silent:
		// Wakes the reader, which gives its large buffer back: see onIdle.
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}
