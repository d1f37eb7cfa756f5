package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// cause is why an exchange, or an attempt of it, is given up before its end.
type cause uint8

const (
	causeNone           cause = iota
	causePerTry               // ends the attempt only, as the next
	causePerTryIdle           // nothing came for too long in this attempt
	causeGone                 // the client went away; this and the following end the exchange
	causeTimeout              // the route's
	causeIdle                 // nothing moved
	causeMaxDuration          // the stream has lived for as long as it may
	causeRequestTimeout       // the request was not received in time
)

// watchAfter is how long an exchange may take before somebody watches whether its client is still there.
const watchAfter = 50 * time.Millisecond

// The deadlines of an exchange.
const (
	deadlineWatch = iota
	deadlineTimeout
	deadlinePerTry
	deadlineMaxDuration
	deadlineRequest
	deadlines
)

// guard ends an exchange, or an attempt, that must not go on. Made for one exchange after the other, it costs a running exchange
// one timer and no goroutine, unless it takes long.
type guard struct {
	timer  *time.Timer // runs fire
	idling atomic.Bool // whether anybody cares when something moves

	mu      sync.Mutex // guards the rest
	active  bool
	at      [deadlines]time.Time
	armed   time.Time // when the timer fires; zero when it doesn't
	idle    time.Duration
	perTry  time.Duration // the idle time of an attempt
	moved   time.Time     // when something was moved last
	client  client
	waits   waits           // what the handler waits for of the client
	deaf    bool            // its reading was interrupted: that the client is gone is then our own doing
	over    chan struct{}   // ends the watch; nil while nobody watches
	whole   cause           // of the exchange
	attempt cause           // of the attempt under way
	ctx     *attemptContext // of the attempt
	cancel  func()          // aborts the attempt's stream; nil between attempts
}

// client is what the guard does with a client: it asks whether it is still there, and wakes the handler that waits for it.
type client interface {
	Gone() <-chan struct{}
	Interrupt()
	Reset(code uint32)
}

// waits is what a handler may wait for of its client. An exchange that is given up meanwhile would go on for ever otherwise, with all
// that it holds: ending the attempt wakes nobody who does not wait for that.
type waits uint8

const (
	waitsNot  waits = iota
	waitsBody       // the request: reading is interrupted, and a reply tells why
	waitsRoom       // that a response is taken: the stream is reset
)

// replyTimeout is how long a client may take to take a reply of ours where streams may idle for ever.
const replyTimeout = time.Minute

func newGuard() *guard {
	g := &guard{ctx: &attemptContext{}}
	g.timer = time.AfterFunc(time.Hour, g.fire)
	g.timer.Stop()
	return g
}

// begin guards an exchange from now on.
func (g *guard) begin(ctx context.Context, client client, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active, g.moved, g.client = true, now, client
	g.ctx.base = ctx
	g.setLocked(deadlineWatch, now.Add(watchAfter))
}

// end stops guarding.
func (g *guard) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active = false
	g.idling.Store(false)
	g.timer.Stop()
	if g.over != nil {
		close(g.over)
	}
	g.ctx.end()
	g.renewLocked()
	g.ctx.base = nil
	g.at = [deadlines]time.Time{}
	g.armed, g.idle, g.perTry, g.client, g.over, g.cancel = time.Time{}, 0, 0, nil, nil, nil
	g.whole, g.attempt, g.waits, g.deaf = causeNone, causeNone, waitsNot, false
}

// set makes a deadline; the zero time takes it back.
func (g *guard) set(which int, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setLocked(which, at)
}

func (g *guard) setLocked(which int, at time.Time) {
	if !g.active {
		return
	}
	g.at[which] = at
	if !at.IsZero() && (g.armed.IsZero() || at.Before(g.armed)) {
		g.armed = at
		g.timer.Reset(time.Until(at))
	}
}

// idleAfter gives the exchange up when nothing moves for so long.
func (g *guard) idleAfter(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = d
	g.armIdleLocked(d)
}

// perTryIdle gives the attempt up likewise.
func (g *guard) perTryIdle(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.perTry = d
	g.armIdleLocked(d)
}

func (g *guard) armIdleLocked(d time.Duration) {
	g.idling.Store(g.idle > 0 || g.perTry > 0)
	if d > 0 {
		g.moved = time.Now()
		g.setLocked(deadlineWatch, g.moved.Add(min(d, watchAfter)))
	}
}

// touch says that something moved.
func (g *guard) touch() {
	if !g.idling.Load() {
		return
	}
	g.mu.Lock()
	g.moved = time.Now()
	g.mu.Unlock()
}

// fire looks which deadline has come. A timer that fires late, for an exchange that is over, finds none.
func (g *guard) fire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.active {
		return
	}
	g.armed = time.Time{}
	now := time.Now()
	for which, why := range [deadlines]cause{
		deadlineTimeout: causeTimeout, deadlinePerTry: causePerTry, deadlineMaxDuration: causeMaxDuration, deadlineRequest: causeRequestTimeout,
	} {
		if at := g.at[which]; why != causeNone && !at.IsZero() && !now.Before(at) {
			g.at[which] = time.Time{}
			g.abortLocked(why)
		}
	}
	var idle time.Time
	for _, limit := range []struct {
		after time.Duration
		why   cause
	}{{g.idle, causeIdle}, {g.perTry, causePerTryIdle}} {
		if limit.after == 0 {
			continue
		}
		if at := g.moved.Add(limit.after); now.Before(at) {
			idle = earlier(idle, at)
		} else {
			g.abortLocked(limit.why)
		}
	}
	if g.over == nil && g.client != nil {
		g.over = make(chan struct{})
		go g.watch(g.client.Gone(), g.over)
	}
	g.at[deadlineWatch] = idle
	var next time.Time
	for _, at := range g.at {
		next = earlier(next, at)
	}
	if !next.IsZero() {
		g.armed = next
		g.timer.Reset(time.Until(next))
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// watch waits for the client to go away.
func (g *guard) watch(gone, over <-chan struct{}) {
	select {
	case <-over:
	case <-gone:
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.over == over && !g.deaf {
			g.abortLocked(causeGone)
		}
	}
}

// abort gives up the exchange, or the attempt.
func (g *guard) abort(why cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.active {
		g.abortLocked(why)
	}
}

func (g *guard) abortLocked(why cause) {
	if g.whole != causeNone {
		return
	}
	g.attempt = why
	if why >= causeGone {
		g.whole = why
	}
	g.ctx.end()
	if g.cancel != nil {
		g.cancel()
		g.cancel = nil
	}
	g.wakeLocked()
}

// wakeLocked ends the handler's wait for the client of an exchange that is given up.
func (g *guard) wakeLocked() {
	switch {
	case g.whole == causeNone || g.client == nil:
	case g.waits == waitsBody:
		g.deaf = true
		g.client.Interrupt()
	case g.waits == waitsRoom:
		g.client.Reset(codeInternal)
	}
}

// waitFor says what the handler is about to wait for. If the exchange is given up already, it need not.
func (g *guard) waitFor(w waits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits = w
	g.wakeLocked()
}

// replies says that a reply of ours is about to be sent, whatever the exchange was given up for before. It has the idle time anew.
func (g *guard) replies() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits, g.whole, g.perTry = waitsRoom, causeNone, 0
	g.at = [deadlines]time.Time{}
	if g.idle == 0 {
		g.idle = replyTimeout
	}
	g.armIdleLocked(g.idle)
}

// next begins another attempt, unless the exchange is given up.
func (g *guard) next() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.whole != causeNone {
		return false
	}
	if g.attempt != causeNone {
		g.attempt = causeNone
		g.renewLocked()
	}
	g.perTry = 0
	g.at[deadlinePerTry] = time.Time{}
	return true
}

// renewLocked makes a context that was not given up.
func (g *guard) renewLocked() { g.ctx = g.ctx.fresh() }

// attach says how the attempt's stream is aborted. If it is given up already, that happens now.
func (g *guard) attach(cancel func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.attempt != causeNone {
		if cancel != nil {
			cancel()
		}
		return
	}
	g.cancel = cancel
}

// detach says that the stream is about to be closed.
func (g *guard) detach() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancel = nil
}

// why tells for what the attempt was given up.
func (g *guard) why() cause {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.attempt
}

// aborted tells for what the exchange was given up.
func (g *guard) aborted() cause {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.whole
}

// waiting is the context of the attempt under way, for what waits: a connection to be made, a pause.
func (g *guard) waiting() *attemptContext {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ctx
}
