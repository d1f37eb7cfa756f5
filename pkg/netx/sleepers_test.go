package netx

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// Beds are given to one relay after the other, and an event for the one before wakes nobody.
func TestBedsAreGivenOn(t *testing.T) {
	s, err := NewSleepers(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, b := tcp.Pair(t)
	relays := make([]*relay, 3*atOnce)
	for n := range relays {
		relays[n] = newRelay(t.Context(), a, b, nil, NewGate(Way{}, Way{}))
		relays[n].bed = &bed{of: s}
		relays[n].gate.source = a
		s.enter(relays[n])
	}
	if n, more := s.look(2*atOnce, make([]*relay, atOnce)); n != 0 || more {
		t.Errorf("at first sight %d are quiet; more: %v", n, more)
	}
	if n, more := s.look(atOnce, make([]*relay, atOnce)); n != 0 || !more {
		t.Errorf("at first sight %d are quiet; more: %v", n, more)
	}
	relays[2*atOnce].bytes.Received.Add(1)
	if n, _ := s.look(2*atOnce, make([]*relay, atOnce)); n != atOnce-1 {
		t.Errorf("%d of %d are quiet", n, atOnce)
	}
	first := *relays[7].bed
	s.leave(relays[7])
	if r := s.find(first.number, first.turn); r != nil {
		t.Error("one that has left is found")
	}
	next := newRelay(t.Context(), a, b, nil, NewGate(Way{}, Way{}))
	next.bed, next.gate.source = &bed{of: s}, a
	s.enter(next)
	if next.bed.number != first.number || len(s.beds) != len(relays) {
		t.Errorf("bed %d of %d, want %d of %d", next.bed.number, len(s.beds), first.number, len(relays))
	}
	if r := s.find(first.number, first.turn); r != nil {
		t.Error("an event for the one before is for the next")
	}
	if r := s.find(next.bed.number, next.bed.turn); r != next {
		t.Error("it is not found")
	}
	for _, r := range append(relays, next) {
		r.stop()
	}
}

// What is watched tells once, of what came before it was watched, too, and not after it is watched no more.
func TestReadiness(t *testing.T) {
	r, err := newReadiness()
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan uint64)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var events [4]unix.EpollEvent
		for {
			n, err := r.next(events[:])
			if err != nil {
				return
			}
			for _, e := range events[:n] {
				told <- uint64(uint32(e.Pad))<<32 | uint64(uint32(e.Fd))
			}
		}
	}()
	a, far := tcp.Pair(t)
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	const before, after, end = 1<<63 | 1, 2, 1<<32 | 3
	if !r.add(a, before) {
		t.Fatal("it cannot be watched")
	}
	if got := <-told; got != before {
		t.Errorf("token %x, want %x", got, uint64(before))
	}
	r.remove(a)
	b, far2 := tcp.Pair(t)
	if !r.add(b, after) {
		t.Fatal("it cannot be watched")
	}
	if _, err := far2.Write([]byte("xx")); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != after {
		t.Errorf("token %x, want %x", got, after)
	}
	if r.add(b, after) {
		t.Error("a socket is watched twice")
	}
	r.remove(b)
	if _, err := far2.Write([]byte("x")); err != nil { // nobody is told
		t.Fatal(err)
	}
	c, far3 := tcp.Pair(t)
	if !r.add(c, end) {
		t.Fatal("it cannot be watched")
	}
	far3.CloseWrite()
	if got := <-told; got != end {
		t.Errorf("token %x, want %x", got, uint64(end))
	}
	c.Close()
	if r.add(c, end) {
		t.Error("a closed socket is watched")
	}
	r.close()
	<-ended
}
