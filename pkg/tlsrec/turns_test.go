package tlsrec

import (
	"io"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// free reports whether the only turn is given back in time.
func free(t *testing.T, turns *netx.Turns) {
	t.Helper()
	got := make(chan struct{})
	k := turns.Taker()
	go func() {
		k.Take()
		k.Give()
		close(got)
	}()
	select {
	case <-got:
	case <-time.After(time.Minute):
		t.Fatal("somebody keeps the turn who waits")
	}
}

// TestWhoWaitsHasNoTurn: for what the peer sends, or until it reads.
func TestWhoWaitsHasNoTurn(t *testing.T) {
	turns := netx.NewTurns(1)
	client, server := ours(t)
	client.TakeTurns(turns.Taker())
	server.TakeTurns(turns.Taker())
	const n = 16 << 20
	wrote := make(chan error, 1)
	go func() {
		_, err := client.Write(make([]byte, n))
		wrote <- err
	}()
	free(t, turns) // though the writer is stuck, sooner or later
	total, largest := 0, 0
	for total < n {
		p, err := server.Next()
		if err != nil {
			t.Fatal(err)
		}
		total += len(p)
		largest = max(largest, server.rx.size)
	}
	if err := <-wrote; err != nil || largest < netx.LargeBuffer {
		t.Errorf("%v, read by %d bytes at most", err, largest)
	}
	server.Rest()
	free(t, turns)
	ended := make(chan error, 1)
	go func() {
		_, err := server.Next()
		ended <- err
	}()
	free(t, turns) // though the reader waits
	if err := client.CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != io.EOF { //nolint:errorlint // as it is documented
		t.Errorf("%v after the end", err)
	}
	server.Rest()
	free(t, turns)
}

// TestTurnsAreOfTheOneWhoWorks: two ends that do all they can, in pieces of any size, with one turn between them.
func TestTurnsAreOfTheOneWhoWorks(t *testing.T) {
	turns := netx.NewTurns(1)
	client, server := ours(t)
	client.TakeTurns(turns.Taker())
	server.TakeTurns(turns.Taker())
	const n = 8 << 20
	sent := make(chan error, 2)
	go func() { sent <- send(client, 1, n, nil) }()
	go func() { sent <- send(server, 2, n, nil) }()
	got := make(chan error, 1)
	back := newSequence(2)
	go func() {
		got <- drain(client, back, mrand.New(mrand.NewPCG(3, 3)))
		client.Rest()
	}()
	forth := newSequence(1)
	if err := drain(server, forth, mrand.New(mrand.NewPCG(4, 4))); err != nil {
		t.Error(err)
	}
	server.Rest()
	for _, done := range []chan error{got, sent, sent} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if back.bad || forth.bad || back.n != n || forth.n != n {
		t.Errorf("%d and %d bytes came, wrong %v and %v", forth.n, back.n, forth.bad, back.bad)
	}
	free(t, turns)
}
