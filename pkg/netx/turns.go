package netx

import "sync"

// Turns bounds how many connections do heavy work at once: reading, writing, opening or sealing a lot of bytes. Everything else never
// waits for one. With one turn for each processor, and one processor of the runtime more than that, what is light finds a processor at
// once, on which the runtime looks for sockets that are ready; with all of them busy it would look every 10 milliseconds. The kernel then
// divides what the machine really has, and prefers who has slept.
//
// Turns go round among those who share them, such as workloads: one that moves bulk on ten connections has no more of the processors
// than one that does on one. Safe for concurrent use.
type Turns struct {
	mu    sync.Mutex // guards all below, and what takers wait with
	free  int        // above 0 only while nobody waits
	first *Taker     // of those for whom somebody waits, in the order in which they are served
	last  *Taker
	spare *waiting
}

// Taker is one of those among whom turns go round. A nil Taker never waits.
type Taker struct {
	of *Turns // immutable

	// guarded by of.mu
	first, last *waiting
	next        *Taker
}

// waiting is a goroutine that waits for its turn.
type waiting struct {
	turn chan struct{} // for one
	next *waiting
}

// NewTurns returns n turns.
func NewTurns(n int) *Turns { return &Turns{free: n} }

// Taker returns a new one.
func (t *Turns) Taker() *Taker { return &Taker{of: t} }

// Take waits for a turn. Whoever has one gives it back soon: it does not wait for anything meanwhile.
func (k *Taker) Take() {
	if k == nil {
		return
	}
	t := k.of
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return
	}
	w := t.spare
	if w == nil {
		w = &waiting{turn: make(chan struct{}, 1)}
	} else {
		t.spare, w.next = w.next, nil
	}
	if k.first == nil {
		k.first = w
		t.add(k)
	} else {
		k.last.next = w
	}
	k.last = w
	t.mu.Unlock()
	<-w.turn
	t.mu.Lock()
	t.spare, w.next = w, t.spare
	t.mu.Unlock()
}

// Give gives a turn back: it goes to whoever has waited longest of the taker that is next.
func (k *Taker) Give() {
	if k == nil {
		return
	}
	t := k.of
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.first
	if next == nil {
		t.free++
		return
	}
	if t.first, next.next = next.next, nil; t.first == nil {
		t.last = nil
	}
	w := next.first
	if next.first, w.next = w.next, nil; next.first != nil {
		t.add(next)
	}
	w.turn <- struct{}{}
}

// add puts a taker last. Called with mu held.
func (t *Turns) add(k *Taker) {
	if t.first == nil {
		t.first = k
	} else {
		t.last.next = k
	}
	t.last = k
}
