package hbone

import "time"

const (
	// busyRate is from how many bytes per second, in one direction, a connection counts as busy: one processor at a time seals what it
	// sends, and one opens what it receives; this is about an eighth of what such a processor does.
	busyRate = 128 << 20
	// meterWindow is over how long that is measured at least.
	meterWindow = 100 * time.Millisecond
	// spareRetry is the pause after a connection that was wanted only because of load could not be made.
	spareRetry = 10 * time.Second
)

// meter measures how much a connection carries, whenever somebody looks. It is guarded by conn.mu.
type meter struct {
	at             time.Time
	sent, received uint64  // at that time
	rate           float64 // of the direction that carried more, in bytes per second
}

// sample returns the rate of late; sent and received are what the connection has carried by now.
func (m *meter) sample(now time.Time, sent, received uint64) float64 {
	passed := now.Sub(m.at)
	switch {
	case m.at.IsZero():
	case passed < meterWindow:
		return m.rate
	default:
		m.rate = float64(max(sent-m.sent, received-m.received)) / passed.Seconds()
	}
	m.at, m.sent, m.received = now, sent, received
	return m.rate
}

// standing is usable, with whether the connection is busy.
func (cc *ClientConn) standing(limit int, now time.Time, busyFrom float64) (ok bool, open int, busy bool) {
	c := cc.c
	c.mu.Lock()
	busy = cc.meter.sample(now, c.sent, c.received) >= busyFrom
	c.mu.Unlock()
	ok, open = cc.usable(limit)
	return ok, open, busy && open > 0
}

// best returns the usable connection, other than one, that carries the fewest streams; one that is busy only if all are. Called with
// Pool.mu held.
func (p *Pool) best(h *host, except *pooled) (best *pooled, busy bool) {
	least := 0
	now := p.now()
	for _, pc := range h.conns {
		if pc == except || !pc.expiry.IsZero() && now.After(pc.expiry) {
			continue
		}
		ok, load, b := pc.cc.standing(p.cfg.MaxStreams, now, float64(p.cfg.BusyRate))
		if !ok || load >= p.cfg.MaxStreams || best != nil && (b && !busy || b == busy && load >= least) {
			continue
		}
		best, least, busy = pc, load, b
	}
	return best, busy
}

// spare makes one more connection while all are busy, for those who come later. Called with Pool.mu held.
func (p *Pool) spare(key PoolKey, h *host) {
	if h.dialing == nil && len(h.conns) < p.cfg.BusyConns && !p.now().Before(h.spareAfter) {
		p.startDial(key, h)
	}
}

// startDial opens a connection in the background. Called with Pool.mu held.
func (p *Pool) startDial(key PoolKey, h *host) *dialing {
	d := &dialing{done: make(chan struct{})}
	h.dialing = d
	p.work.Go(func() { p.dialFor(key, d) })
	return d
}
