package netx

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// SleepAfter is for how long a relay is quiet, at least, before it sleeps; at most it is twice as long.
const SleepAfter = 5 * time.Second

// errTired is how a direction ends, for the time being, of a relay that is to sleep.
var errTired = errors.New("the relay is to sleep")

// Sleepers lets relays sleep that have been quiet for long. A relay that sleeps has no goroutine: one epoll instance watches the
// sockets of all of them, and the first byte, end or error of its socket wakes it, as do the end of its context, of its tunnel, and its
// [Gate]. What comes from the tunnel goes to the socket while it sleeps: no goroutine was needed for that before.
//
// Relays between a tunnel and a socket sleep, others never do. A nil Sleepers lets none sleep. Safe for concurrent use.
type Sleepers struct {
	// immutable
	after   time.Duration
	ready   *readiness
	workers Workers       // relays that have woken
	stop    chan struct{} // closed by Close
	tasks   sync.WaitGroup

	asleep atomic.Int64

	mu   sync.Mutex // guards the rest; nothing else is locked under it
	beds []bedroom
	free uint32 // the first bed without a relay, plus one; 0 is none
}

// bedroom is a place in the list of relays that may sleep.
type bedroom struct {
	relay *relay
	turn  uint32 // how often the bed was given to a relay: an event for the one before is of no use
	free  uint32 // the next bed without a relay, plus one
}

// bed is what a relay that may sleep keeps for that.
type bed struct {
	// immutable
	of   *Sleepers
	over func(error)

	// settled before the relay may sleep
	entered bool
	number  uint32
	turn    uint32

	seen  uint64 // bytes when it was looked at last; owned by the sweep
	quiet uint64 // bytes when it was asked to sleep; guarded by the gate's mu
}

// NewSleepers starts to watch. A relay sleeps when it has been quiet for after, or up to twice as long; 0 is [SleepAfter].
func NewSleepers(after time.Duration) (*Sleepers, error) {
	if after == 0 {
		after = SleepAfter
	}
	ready, err := newReadiness()
	if err != nil {
		return nil, fmt.Errorf("watch idle connections: %w", err)
	}
	s := &Sleepers{after: after, ready: ready, stop: make(chan struct{})}
	s.tasks.Go(s.listen)
	s.tasks.Go(s.watch)
	return s, nil
}

// Close ends the watch. It is called when all relays are over.
func (s *Sleepers) Close() {
	if s == nil {
		return
	}
	close(s.stop)
	s.ready.close()
	s.tasks.Wait()
	s.workers.Wait()
}

// Asleep is how many relays sleep now.
func (s *Sleepers) Asleep() int {
	if s == nil {
		return 0
	}
	return int(s.asleep.Load())
}

// Relay is [RelayThrough], which tells over the outcome, once, on whatever goroutine it has then. It returns when that has been told, or when
// the relay sleeps. c and gate may be nil.
func (s *Sleepers) Relay(ctx context.Context, downstream, upstream Stream, c *Counters, gate *Gate, over func(error)) {
	s.begin(ctx, downstream, upstream, c, gate, over).carry()
}

// begin is Relay up to where it waits: see run.
func (s *Sleepers) begin(ctx context.Context, downstream, upstream Stream, c *Counters, gate *Gate, over func(error)) *relay {
	if gate == nil {
		gate = NewGate(Way{}, Way{})
	}
	r := newRelay(ctx, downstream, upstream, c, gate)
	r.bed = &bed{of: s, over: over}
	r.begin()
	s.enter(r)
	return r
}

// carry goes on with a relay until it is over, or sleeps.
func (r *relay) carry() {
	for !r.gate.Moved() {
		err := r.copy(r.fromUpstream)
		if !errors.Is(err, errTired) {
			r.ended(r.fromUpstream, err)
			break
		}
		if r.lull() {
			return // whoever wakes it goes on here
		}
	}
	err := r.finish()
	r.bed.of.leave(r)
	r.bed.over(err)
}

// enter takes a relay that may sleep into the list.
func (s *Sleepers) enter(r *relay) {
	if s == nil || r.gate.source == nil {
		return
	}
	b := r.bed
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 {
		s.beds = append(s.beds, bedroom{})
		s.free = uint32(len(s.beds))
	}
	b.entered, b.number = true, s.free-1
	room := &s.beds[b.number]
	s.free = room.free
	room.turn++
	room.relay, room.free, b.turn = r, 0, room.turn
	b.seen = ^uint64(0) // at the first look it has moved
}

// leave takes it out, if it is in there.
func (s *Sleepers) leave(r *relay) {
	b := r.bed
	if !b.entered {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	room := &s.beds[b.number]
	room.relay, room.free = nil, s.free
	s.free = b.number + 1
}

// watch asks those to sleep that are quiet.
func (s *Sleepers) watch() {
	ticker := time.NewTicker(s.after)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.sweep()
		case <-s.stop:
			return
		}
	}
}

// atOnce bounds for how long a sweep keeps others from the list.
const atOnce = 256

// sweep looks at all relays once.
func (s *Sleepers) sweep() {
	var quiet [atOnce]*relay
	for from, more := 0, true; more; from += atOnce {
		var n int
		n, more = s.look(from, quiet[:])
		for i, r := range quiet[:n] {
			r.nudge()
			quiet[i] = nil
		}
	}
}

// look finds relays, of some from one on, that have moved nothing since the look before.
func (s *Sleepers) look(from int, quiet []*relay) (n int, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := min(from+len(quiet), len(s.beds))
	for i := min(from, end); i < end; i++ {
		r := s.beds[i].relay
		if r == nil {
			continue
		}
		if now := r.moved(); now != r.bed.seen {
			r.bed.seen = now
			continue
		}
		quiet[n] = r
		n++
	}
	return n, end < len(s.beds)
}

// moved is how many bytes have passed, in both directions.
func (r *relay) moved() uint64 { return r.bytes.Sent.Load() + r.bytes.Received.Load() }

// nudge asks the relay to sleep: whoever reads its socket finds that there is nothing.
func (r *relay) nudge() {
	g := r.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != flowing || g.over || g.running == 0 {
		return // it sleeps, or has other things to do
	}
	g.drowsy, r.bed.quiet = true, r.moved()
	_ = g.source.SetReadDeadline(time.Unix(1, 0)) // it may be closed by now
}

// tiredLocked is what Park answers one who copies and need not stand still: errTired, if it was asked to let the relay sleep and has
// nothing in hand.
func (g *Gate) tiredLocked(rest []byte) error {
	if !g.drowsy {
		return nil
	}
	g.drowsy = false
	_ = g.source.SetReadDeadline(time.Time{}) // on a socket that is closed, reading fails anyway
	if len(rest) > 0 {
		return nil
	}
	return errTired
}

// lull puts the relay to sleep, unless there is a reason to go on.
func (r *relay) lull() bool {
	g, b := r.gate, r.bed
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != flowing || g.over || r.moved() != b.quiet {
		return false
	}
	// What has come before this is found by epoll at once; then it waits for mu to wake the relay.
	if !b.of.ready.add(g.source, uint64(b.turn)<<32|uint64(b.number)) {
		return false
	}
	g.sleeper = r
	g.running--
	b.of.asleep.Add(1)
	g.changed.Broadcast()
	return true
}

// wake lets a relay go on that sleeps: at once, or when it need not stand still any more.
func (g *Gate) wake() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wakeLocked()
}

func (g *Gate) wakeLocked() {
	r := g.sleeper
	if r == nil {
		return
	}
	if g.phase == stopping {
		g.roused = true
		return
	}
	g.sleeper, g.roused = nil, false
	if g.phase == flowing {
		g.running++
	}
	s := r.bed.of
	s.asleep.Add(-1)
	// Before the socket is closed, here or, after a hand-over, by somebody else: with its descriptor gone, nobody could do it.
	s.ready.remove(g.source)
	s.workers.Go(r.carry)
}

// listen wakes those whose sockets have something.
func (s *Sleepers) listen() {
	var events [128]unix.EpollEvent
	for {
		n, err := s.ready.next(events[:])
		if err != nil {
			return // closed
		}
		for i := range events[:n] {
			if r := s.find(uint32(events[i].Fd), uint32(events[i].Pad)); r != nil {
				r.gate.wake()
			}
		}
	}
}

// find returns the relay of an event; nil is one that is over.
func (s *Sleepers) find(number, turn uint32) *relay {
	s.mu.Lock()
	defer s.mu.Unlock()
	if room := s.beds[number]; room.turn == turn {
		return room.relay
	}
	return nil
}
