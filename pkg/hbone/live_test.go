package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// mover is a tunnel connection between two applications, of which either end can be moved. Each stream is relayed on both sides, as
// ztunnel does it:
//
//	client application - relay - tunnel - relay - server application, which echoes
type mover struct {
	t     *testing.T
	lives [2]Live // client, server
	cc    *ClientConn
	// relays sleep as soon as they are quiet for a moment, or never
	sleepers *netx.Sleepers

	mu     sync.Mutex // guards the rest
	relays [2]map[uint32]*relayed
	wg     sync.WaitGroup
	serve  chan Live
	apps   []*net.TCPConn // the applications' own ends
	ended  bool           // applications have gone
}

// relayed is one stream with its application's socket.
type relayed struct {
	app    *net.TCPConn
	stream *Stream
	gate   *netx.Gate
	done   chan error
}

func newMover(t *testing.T) *mover {
	t.Helper()
	m := bareMover(t)
	a, b := secured(t, carriage{client: Records, server: Records}) // whatever carries the other tests
	m.serveOn(b)
	m.dialled(a, func() {})
	m.lives[1] = <-m.serve
	return m
}

// bareMover has neither end yet.
func bareMover(t *testing.T) *mover {
	t.Helper()
	return &mover{t: t, relays: [2]map[uint32]*relayed{{}, {}}, serve: make(chan Live, 8), sleepers: sleepers(t, time.Millisecond)}
}

// serveOn makes conn the server's end.
func (m *mover) serveOn(conn Secured) {
	m.wg.Go(func() {
		_ = ServeConn(context.Background(), conn, handlerFunc(m.accept), ServerConfig{Started: func(l Live) { m.serve <- l }})
	})
}

// pair returns a relay's and an application's end of a connection. The relay closes its own: a socket that somebody else closes wakes
// no relay that sleeps.
func (m *mover) pair() (app, far *net.TCPConn) {
	app, far = tcp.Pair(uncleaned{m.t})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.apps = append(m.apps, far); m.ended {
		far.Close()
	}
	return app, far
}

// uncleaned is a test that closes nothing when it ends.
type uncleaned struct{ testing.TB }

func (uncleaned) Cleanup(func()) {}

// leave ends the applications: a relay in which only theirs is the word would wait for it for ever.
func (m *mover) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	for _, far := range m.apps {
		far.Close()
	}
}

// dialled makes conn the client's end. Between closing it, when the test ends, and waiting for the server's, hangUp is called.
func (m *mover) dialled(conn Secured, hangUp func()) {
	m.t.Helper()
	cc, err := NewClientConn(conn, ClientConfig{})
	if err != nil {
		m.t.Fatal(err)
	}
	m.cc, m.lives[0] = cc, cc.Live()
	m.t.Cleanup(func() {
		m.cc.Close()
		hangUp()
		m.leave()
		m.wg.Wait()
	})
}

// sleepers ends with the test, after what is cleaned up later.
func sleepers(t testing.TB, after time.Duration) *netx.Sleepers {
	t.Helper()
	s, err := netx.NewSleepers(after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// accept is the server's side of a stream.
func (m *mover) accept(_ context.Context, _ *Request, w ResponseWriter) {
	s, err := w.Accept(nil)
	if err != nil {
		return
	}
	app, far := m.pair()
	m.wg.Go(func() {
		io.Copy(far, far)
		far.CloseWrite()
	})
	m.relay(1, &relayed{app: app, stream: s, gate: netx.NewGate(netx.Way{}, netx.Way{})}, w.Detach())
}

// relay calls done when the relay is over, which it may not be when relay returns.
func (m *mover) relay(side int, r *relayed, done func()) {
	r.done = make(chan error, 1)
	m.mu.Lock()
	m.relays[side][r.stream.ID()] = r
	m.mu.Unlock()
	down, up := netx.Stream(r.app), netx.Stream(r.stream)
	if side == 1 {
		down, up = up, down
	}
	m.sleepers.Relay(context.Background(), down, up, nil, r.gate, func(err error) {
		if errors.Is(err, ErrMoved) {
			r.app.Close()
		}
		r.done <- err
		done()
	})
}

// relayOn is relay beside the test.
func (m *mover) relayOn(side int, r *relayed) {
	m.wg.Add(1)
	m.wg.Go(func() { m.relay(side, r, m.wg.Done) })
}

// open opens a stream and returns the application's end.
func (m *mover) open() *net.TCPConn {
	m.t.Helper()
	app, far := m.pair()
	s, _, err := m.cc.Connect(deadline(m.t), &Request{Authority: "10.0.0.1:80"})
	if err != nil {
		m.t.Fatal(err)
	}
	m.relayOn(0, &relayed{app: app, stream: s, gate: netx.NewGate(netx.Way{}, netx.Way{})})
	return far
}

// freeze makes one side stand still and returns its state and the relays of its streams.
func (m *mover) freeze(side int) (*State, map[uint32]*relayed) {
	m.t.Helper()
	ctx, live := deadline(m.t), m.lives[side]
	if err := live.Settle(ctx); err != nil {
		m.t.Fatal(err)
	}
	if err := live.Stop(ctx); err != nil {
		m.t.Fatal(err)
	}
	stopped := map[uint32]*relayed{}
	for settled := false; !settled; {
		settled = true
		for _, s := range live.Streams() {
			m.mu.Lock()
			r := m.relays[side][s.ID()]
			m.mu.Unlock()
			if r == nil || stopped[s.ID()] == nil && r.gate.Stop(ctx) != nil {
				settled = false
				time.Sleep(time.Millisecond)
				continue
			}
			stopped[s.ID()] = r
		}
	}
	state, err := live.Export()
	if err != nil {
		m.t.Fatal(err)
	}
	return state, stopped
}

// move moves one side to a connection of its own making, as another process would.
func (m *mover) move(side int) {
	m.t.Helper()
	state, relays := m.freeze(side)
	encoded := state.Encode()
	again, err := ParseState(encoded)
	if err != nil {
		m.t.Fatal(err)
	}
	clear(encoded)
	socket := duplicate(m.t, m.lives[side].Socket())
	type end struct {
		app            *net.TCPConn
		sent, received netx.Way
	}
	var ends []end
	for _, id := range again.StreamIDs() {
		r := relays[id]
		e := end{app: duplicate(m.t, r.app)}
		e.sent, e.received = r.gate.State()
		ends = append(ends, e)
	}
	m.lives[side].Leave()
	for _, r := range relays {
		r.gate.Leave()
	}
	state.Erase()
	for id, r := range relays {
		if err := <-r.done; !errors.Is(err, ErrMoved) {
			m.t.Errorf("stream %d here: %v", id, err)
		}
	}
	secured, err := ResumeTLS(socket, again)
	if err != nil {
		m.t.Fatal(err)
	}
	resumed, err := Resume(secured, again, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	next := map[*Stream]*relayed{}
	m.mu.Lock()
	m.relays[side] = map[uint32]*relayed{}
	m.mu.Unlock()
	for n, s := range resumed.Streams() {
		next[s] = &relayed{app: ends[n].app, stream: s, gate: netx.NewGate(ends[n].sent, ends[n].received)}
	}
	m.lives[side] = resumed.Live()
	if side == 0 {
		old := m.cc
		<-old.ended
		m.cc = resumed.Start()
		for _, r := range next {
			m.relayOn(0, r)
		}
		return
	}
	m.wg.Go(func() {
		_ = resumed.Serve(context.Background(), handlerFunc(m.accept), ServerConfig{}, func(_ context.Context, s *Stream, done func()) {
			m.relay(1, next[s], done)
		})
	})
}

// refuse makes one side stand still and go on.
func (m *mover) refuse(side int) {
	m.t.Helper()
	state, relays := m.freeze(side)
	if err := m.lives[side].Restore(state); err != nil {
		m.t.Fatal(err)
	}
	m.lives[side].Thaw()
	for _, r := range relays {
		r.gate.Thaw()
	}
}

func duplicate(t *testing.T, c net.Conn) *net.TCPConn {
	t.Helper()
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	again, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return again.(*net.TCPConn)
}

// talk sends random bytes until stop is closed, and expects each of them back, in order, and then the end.
func talk(app *net.TCPConn, stop <-chan struct{}, moved *atomic.Int64) error {
	if err := talkOn(app, stop, moved, app.CloseWrite); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, app); n > 0 || err != nil {
		return fmt.Errorf("after the end: %d bytes, %w", n, err)
	}
	return nil
}

// talkOn is talk without an end, in place of which end is called.
func talkOn(app *net.TCPConn, stop <-chan struct{}, moved *atomic.Int64, end func() error) error {
	type piece struct{ seed, n uint64 }
	sent := make(chan piece, 64)
	failed := make(chan error, 1)
	go func() {
		defer close(sent)
		for seed := uint64(1); ; seed++ {
			select {
			case <-stop:
				failed <- end()
				return
			default:
			}
			rng := mrand.New(mrand.NewPCG(seed, 7))
			n := 1 + rng.Uint64N(200_000)
			b := make([]byte, n)
			fill(rng, b)
			sent <- piece{seed, n}
			if _, err := app.Write(b); err != nil {
				failed <- err
				return
			}
		}
	}()
	for p := range sent {
		rng := mrand.New(mrand.NewPCG(p.seed, 7))
		_ = rng.Uint64N(200_000)
		want, got := make([]byte, p.n), make([]byte, p.n)
		fill(rng, want)
		if _, err := io.ReadFull(app, got); err != nil {
			return fmt.Errorf("piece %d: %w", p.seed, err)
		}
		if !bytes.Equal(want, got) {
			return fmt.Errorf("piece %d came back changed", p.seed)
		}
		moved.Add(int64(p.n))
	}
	return <-failed
}

func fill(rng *mrand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

// TestConnectionsMoveUnderLoad: streams that are busy both ways lose, double and change no byte while their ends are moved, and while
// a move is refused.
func TestConnectionsMoveUnderLoad(t *testing.T) {
	m := newMover(t)
	stop := make(chan struct{})
	var moved atomic.Int64
	var talks sync.WaitGroup
	for range 4 {
		app := m.open()
		talks.Go(func() {
			if err := talk(app, stop, &moved); err != nil {
				t.Error(err)
			}
		})
	}
	idle := m.open()
	for n := range 12 {
		// Something passes between two moves.
		before := moved.Load()
		wait.Until(t, 2*time.Minute, "something passes", func() bool { return moved.Load() >= before+300_000 || t.Failed() }, nil)
		switch n % 4 {
		case 0:
			m.refuse(0)
		case 1:
			m.move(0)
		case 2:
			m.refuse(1)
		case 3:
			m.move(1)
		}
	}
	fresh := m.open() // on the connection as it is now
	if err := exchange(fresh, 100_000); err != nil {
		t.Error("a stream that was opened after the moves:", err)
	}
	if err := exchange(idle, 100_000); err != nil {
		t.Error("a stream that was idle meanwhile:", err)
	}
	close(stop)
	talks.Wait()
}

// TestHalfClosedStreamsMove: an end that was passed on before a move is not passed on again, and one that was not, is.
func TestHalfClosedStreamsMove(t *testing.T) {
	m := newMover(t)
	app := m.open()
	app.CloseWrite()
	if n, err := io.Copy(io.Discard, app); n > 0 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	open := m.open()
	for side := range 2 {
		m.move(side)
	}
	if err := exchange(open, 10); err != nil {
		t.Error(err)
	}
}

// TestASlowApplicationDoesNotHinderAMove: what waits for an application that does not read goes along.
func TestASlowApplicationDoesNotHinderAMove(t *testing.T) {
	m := newMover(t)
	app := m.open()
	data := make([]byte, 6<<20) // more than the sockets hold, less than the windows
	rand.Read(data)
	wrote := make(chan error, 1)
	go func() {
		_, err := app.Write(data)
		wrote <- errors.Join(err, app.CloseWrite())
	}()
	for side := range 2 {
		m.move(side)
	}
	got, err := io.ReadAll(app)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestStatesHideWhatTheyHold(t *testing.T) {
	m := newMover(t)
	m.open()
	state, relays := m.freeze(0)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", state, state, state), fmt.Sprintf("%v", *state)} {
		if !bytes.Contains([]byte(text), []byte("redacted")) {
			t.Errorf("it prints as %s", text)
		}
	}
	if err := m.lives[0].Restore(state); err != nil {
		t.Fatal(err)
	}
	m.lives[0].Thaw()
	for _, r := range relays {
		r.gate.Thaw()
	}
}

func FuzzParseState(f *testing.F) {
	for _, side := range sides() {
		name, _ := recordings(f, stateVersion, side)
		state, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(state)
	}
	f.Add([]byte{})
	f.Add([]byte{stateVersion, 1, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		s, err := ParseState(b)
		if err != nil {
			return
		}
		defer s.Erase()
		a, far := net.Pipe()
		defer a.Close()
		defer far.Close()
		secured, err := ResumeTLS(a, s)
		if err != nil {
			return
		}
		if r, err := Resume(secured, s, nil); err == nil {
			r.Drop()
		}
	})
}
