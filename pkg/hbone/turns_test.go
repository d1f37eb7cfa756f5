package hbone

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// TestStuckBulkKeepsNoTurn: a workload whose receiver does not read does not keep others from their turns, of which there is one.
func TestStuckBulkKeepsNoTurn(t *testing.T) {
	turns := netx.NewTurns(1)
	stuck, reading := newSlowReader(), newSlowReader()
	close(reading.read)
	slow, _ := connect(t, stuck, ServerConfig{Budget: &purse{turns: turns.Taker()}})
	quick, _ := connect(t, reading, ServerConfig{Budget: &purse{turns: turns.Taker()}})
	const n = 12 << 20 // more than a stream's window, so that the sender waits, too
	_, late := feed(t, slow, n)
	for range 3 {
		_, done := feed(t, quick, n)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := <-reading.ended; err != nil {
			t.Fatal(err)
		}
	}
	close(stuck.read)
	for _, done := range []<-chan error{late, stuck.ended} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if reading.bytes.Load() != 3*n || stuck.bytes.Load() != n {
		t.Errorf("%d and %d bytes arrived", reading.bytes.Load(), stuck.bytes.Load())
	}
}

// TestAReaderThatEndsGivesItsTurnBack: the connection breaks in the middle of bulk, and the next one has its turn.
func TestAReaderThatEndsGivesItsTurnBack(t *testing.T) {
	turns := netx.NewTurns(1)
	p := &purse{turns: turns.Taker()}
	for range 5 {
		handler := newSlowReader()
		close(handler.read)
		cc, served := connect(t, handler, ServerConfig{Budget: p})
		_, done := feed(t, cc, 64<<20)
		p.until(t, "bulk flows", func(int64) bool { return handler.bytes.Load() > 0 || p.most.Load() > 0 })
		cc.Close()
		<-done
		<-served
		p.turns.Take() // or it waits for ever
		p.turns.Give()
		<-handler.ended
	}
}
