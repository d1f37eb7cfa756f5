package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// ErrMoved is how a relay ends that goes on in another process: nothing was closed and no end was passed on.
var ErrMoved = errors.New("the connection lives in another process")

// errOver is what Stop answers about a relay that has ended.
var errOver = errors.New("the connection has ended")

// Gate stops a relay where nothing is under way, so that another process can go on with it, or this one, when the other does
// not want it. It serves one relay. Safe for concurrent use; a nil Gate never stops anything.
type Gate struct {
	mu      sync.Mutex // guards the rest
	changed sync.Cond
	phase   phase
	started bool
	over    bool
	running int // directions that have goroutines, neither parked nor ended
	sockets []*net.TCPConn
	holds   holder        // the tunnel, if it is one
	left    chan struct{} // closed by Leave; nil until somebody waits for that

	source  *net.TCPConn // what is read by the one goroutine of a relay that may sleep, else nil
	drowsy  bool         // that goroutine is asked to let the relay sleep
	sleeper *relay       // while it sleeps
	roused  bool         // it is to wake as soon as it need not stand still

	sent, received Lane
}

type phase uint8

const (
	flowing  phase = iota
	stopping       // directions park
	left           // for good
)

// Way is what another process must know of one direction of a relay.
type Way struct {
	// Ended: the end has been passed on.
	Ended bool
	// Rest is what was read and not written.
	Rest []byte
}

// Lane is one direction of a relay, as the one who copies sees it.
type Lane struct {
	gate *Gate
	way  Way // guarded by gate.mu
}

// holder is a stream that forwards to a socket and can be made to stop that.
type holder interface {
	// Poke makes whoever waits to send look at the lane.
	Poke()
	Hold(ctx context.Context) error
	Unhold()
}

// NewGate returns a gate for a relay that has come to where sent and received say: nothing, at its beginning.
func NewGate(sent, received Way) *Gate {
	g := &Gate{}
	g.changed.L = &g.mu
	g.sent, g.received = Lane{gate: g, way: sent}, Lane{gate: g, way: received}
	return g
}

// Stop returns when the relay stands still: nothing is read or written until Thaw. It waits for a relay that has not begun. After
// an error it goes on as if nothing had been asked.
func (g *Gate) Stop(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changed.Broadcast()
	})()
	g.mu.Lock()
	for !g.started && !g.over && ctx.Err() == nil {
		g.changed.Wait()
	}
	if g.over || ctx.Err() != nil || g.phase != flowing {
		defer g.mu.Unlock()
		if ctx.Err() != nil {
			return fmt.Errorf("a connection that is being opened: %w", context.Cause(ctx))
		}
		return errOver
	}
	g.phase = stopping
	for _, c := range g.sockets {
		c.SetReadDeadline(time.Unix(1, 0))
	}
	holds := g.holds
	g.mu.Unlock()
	if holds != nil {
		holds.Poke()
	}
	g.mu.Lock()
	for g.running > 0 && !g.over && ctx.Err() == nil {
		g.changed.Wait()
	}
	stands := g.running == 0 && !g.over
	g.mu.Unlock()
	err := errOver
	if stands {
		if err = nil; holds != nil {
			err = holds.Hold(ctx)
		}
	} else if ctx.Err() != nil {
		err = fmt.Errorf("a connection whose receiver does not read: %w", context.Cause(ctx))
	}
	if err != nil {
		g.Thaw()
	}
	return err
}

// State is where the relay stands, which Stop has stopped.
func (g *Gate) State() (sent, received Way) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sent.way, g.received.way
}

// Thaw lets the relay go on.
func (g *Gate) Thaw() {
	g.mu.Lock()
	if g.phase != stopping {
		g.mu.Unlock()
		return
	}
	g.phase, g.drowsy = flowing, false
	for _, c := range g.sockets {
		_ = c.SetDeadline(time.Time{}) // it may be closed by now
	}
	if g.roused {
		g.wakeLocked()
	}
	holds := g.holds
	g.changed.Broadcast()
	g.mu.Unlock()
	if holds != nil {
		holds.Unhold()
	}
}

// Leave ends a relay that stands still with ErrMoved.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != stopping {
		return
	}
	if g.phase = left; g.left != nil {
		close(g.left)
	}
	g.wakeLocked() // to see it end
	g.changed.Broadcast()
}

// Moved reports whether Leave was called.
func (g *Gate) Moved() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase == left
}

// start opens the gate for a relay between sockets, or between a tunnel, which may be nil, and a socket; running directions have
// goroutines.
func (g *Gate) start(running int, tunnel Stream, ends ...Stream) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started, g.running = true, running
	g.holds, _ = tunnel.(holder)
	for _, s := range ends {
		if tcp, ok := s.(*net.TCPConn); ok {
			g.sockets = append(g.sockets, tcp)
		}
	}
	if _, reads := tunnel.(copier); reads {
		g.source = g.sockets[0]
	}
	g.changed.Broadcast()
}

// Abandon says that there will be no relay, or that it is over.
func (g *Gate) Abandon() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	g.changed.Broadcast()
}

// settle is for a relay that is to end: it waits while another process may still take it, and reports that none has. Nobody stops
// the relay any more then, so that its sockets can be closed.
func (g *Gate) settle() bool {
	if g == nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.phase == stopping {
		g.changed.Wait()
	}
	g.over = true
	g.changed.Broadcast()
	return g.phase == flowing
}

// leaving is closed by Leave.
func (g *Gate) leaving() <-chan struct{} {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == nil {
		g.left = make(chan struct{})
		if g.phase == left {
			close(g.left)
		}
	}
	return g.left
}

func (g *Gate) lanes() (sent, received *Lane) {
	if g == nil {
		return nil, nil
	}
	return &g.sent, &g.received
}

// ended reports whether the direction's end was passed on before.
func (l *Lane) ended() bool {
	if l == nil {
		return false
	}
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	return l.way.Ended
}

// leave notes that the direction has no goroutine any more, and whether its end was passed on.
func (l *Lane) leave(passed, counted bool) {
	if l == nil {
		return
	}
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	l.way.Ended = l.way.Ended || passed
	if counted {
		l.gate.running--
	}
	l.gate.changed.Broadcast()
}

// TakeRest returns what is to be written before anything is read.
func (l *Lane) TakeRest() []byte {
	if l == nil {
		return nil
	}
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	rest := l.way.Rest
	l.way.Rest = nil
	return rest
}

// Interrupted reports whether err, of reading or writing, only says that the relay is to stop or to sleep: nobody else sets deadlines.
func (l *Lane) Interrupted(err error) bool { return l != nil && errors.Is(err, os.ErrDeadlineExceeded) }

// Stopping reports whether one who copies is to park.
func (l *Lane) Stopping() bool {
	if l == nil {
		return false
	}
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	return l.gate.phase != flowing
}

// Park stands still, with what was read and not written, until the relay goes on, which is nil, or has left, which is ErrMoved. An
// error is for the relay: whoever copies returns it as it is.
func (l *Lane) Park(rest []byte) error {
	g := l.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == flowing {
		return g.tiredLocked(rest)
	}
	l.way.Rest = rest
	g.running--
	g.changed.Broadcast()
	for g.phase == stopping {
		g.changed.Wait()
	}
	if g.phase == left {
		return ErrMoved
	}
	g.running++
	l.way.Rest = nil
	return nil
}
