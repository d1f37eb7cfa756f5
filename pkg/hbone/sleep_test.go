package hbone

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// night is a tunnel whose relays, on both sides, sleep when they are quiet.
type night struct {
	*testing.T
	cc       *ClientConn
	sleepers *netx.Sleepers
	far      chan *net.TCPConn // the server applications' ends
	overs    chan error        // outcomes on the server's side
}

func newNight(t *testing.T) *night {
	t.Helper()
	n := &night{T: t, sleepers: sleepers(t, time.Millisecond), far: make(chan *net.TCPConn, 1000), overs: make(chan error, 1000)}
	n.cc, _ = connect(t, handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
		s, err := w.Accept(nil)
		if err != nil {
			return
		}
		app, far := tcp.Pair(t)
		n.far <- far
		done := w.Detach()
		n.sleepers.Relay(ctx, s, app, nil, nil, func(err error) {
			n.overs <- err
			done()
		})
	}), ServerConfig{})
	return n
}

// slept is one connection through the tunnel.
type slept struct {
	near, far *net.TCPConn // the applications
	app       *net.TCPConn // the client's proxy's end of near
	stream    *Stream
	gate      *netx.Gate
	over      chan error // outcome on the client's side
	count     netx.Counters
}

func (n *night) open(ctx context.Context) *slept {
	n.Helper()
	app, near := tcp.Pair(n)
	stream, _, err := n.cc.Connect(deadline(n), &Request{Authority: "a:1"})
	if err != nil {
		n.Fatal(err)
	}
	s := &slept{near: near, app: app, stream: stream, gate: netx.NewGate(netx.Way{}, netx.Way{}), over: make(chan error, 1), far: <-n.far}
	go n.sleepers.Relay(ctx, app, stream, &s.count, s.gate, func(err error) { s.over <- err })
	return s
}

// asleep returns when as many relays sleep.
func (n *night) asleep(want int) {
	n.Helper()
	wait.Until(n, time.Minute, "relays sleep", func() bool { return n.sleepers.Asleep() == want }, nil)
}

// pass moves some bytes from one application to the other.
func pass(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	sent := bytes.Repeat([]byte("zz"), 20_000)
	go func() { _, _ = from.Write(sent) }()
	got := make([]byte, len(sent))
	to.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("what woke a relay did not pass: %v", err)
	}
}

// Relays that are quiet have no goroutine; bytes from either side wake those that they need, again and again.
func TestQuietRelaysSleep(t *testing.T) {
	n := newNight(t)
	before := runtime.NumGoroutine()
	all := make([]*slept, 50)
	for i := range all {
		all[i] = n.open(t.Context())
	}
	for range 3 {
		n.asleep(2 * len(all))
		// Nobody else but a few who wait for work is there.
		wait.Until(t, time.Minute, "no goroutines", func() bool { return runtime.NumGoroutine() <= before+10 }, nil)
		for i, s := range all {
			if i%2 == 0 {
				pass(t, s.near, s.far)
			} else {
				pass(t, s.far, s.near)
			}
			if err := s.gate.Stop(t.Context()); err != nil { // whether it sleeps or not
				t.Fatal(err)
			}
			s.gate.Thaw()
		}
	}
	n.asleep(2 * len(all))
	for _, s := range all {
		s.near.CloseWrite()
		if rest, err := io.ReadAll(s.far); len(rest) > 0 || err != nil {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
		pass(t, s.far, s.near) // half closed
		s.far.CloseWrite()
		if rest, err := io.ReadAll(s.near); len(rest) > 0 || err != nil {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
		if err := errors.Join(<-s.over, <-n.overs); err != nil {
			t.Error(err)
		}
	}
	n.asleep(0)
}

// Whatever ends a relay that sleeps, it ends, and both applications see it.
func TestSleepersEnd(t *testing.T) {
	cause := errors.New("of this test")
	for name, tt := range map[string]struct {
		end      func(n *night, s *slept, cancel context.CancelCauseFunc)
		want     func(client, server error) bool
		orderly  bool // the other application sees an end, not a reset
		farFirst bool // it was the far application
	}{
		"the application goes": {
			end:  func(_ *night, s *slept, _ context.CancelCauseFunc) { s.near.Close() },
			want: func(client, server error) bool { return client == nil && server == nil }, orderly: true,
		},
		"the application resets": {
			end:  func(_ *night, s *slept, _ context.CancelCauseFunc) { netx.Abort(s.near) },
			want: func(client, server error) bool { return client != nil && server != nil },
		},
		"the other application resets": {
			end:  func(_ *night, s *slept, _ context.CancelCauseFunc) { netx.Abort(s.far) },
			want: func(client, server error) bool { return client != nil && server != nil }, farFirst: true,
		},
		"its context": {
			end: func(_ *night, _ *slept, cancel context.CancelCauseFunc) { cancel(cause) },
			want: func(client, server error) bool {
				return errors.Is(client, cause) && server != nil
			},
		},
		"the tunnel is reset": {
			end:  func(_ *night, s *slept, _ context.CancelCauseFunc) { s.stream.Reset() },
			want: func(client, server error) bool { return client != nil && server != nil },
		},
		"the connection": {
			end:  func(n *night, _ *slept, _ context.CancelCauseFunc) { n.cc.c.fail(cause) },
			want: func(client, server error) bool { return errors.Is(client, cause) && server != nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNight(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			life := netx.NewLife(ctx)
			defer life.End(nil)
			s := n.open(life)
			n.asleep(2)
			tt.end(n, s, cancel)
			see := s.far
			if tt.farFirst {
				see = s.near
			}
			see.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := see.Read(make([]byte, 1)); errors.Is(err, io.EOF) != tt.orderly || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the other end sees %v", err)
			}
			if tt.orderly {
				s.far.Close()
			}
			if client, server := <-s.over, <-n.overs; !tt.want(client, server) {
				t.Errorf("it ends with %v and %v", client, server)
			}
			n.asleep(0)
		})
	}
}

// A relay that sleeps stands still when it is stopped: what wakes it waits for the thaw, or for whoever goes on with it.
func TestSleepersStop(t *testing.T) {
	n := newNight(t)
	s := n.open(t.Context())
	n.asleep(2)
	if err := s.gate.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.sleepers.Asleep(); got != 2 {
		t.Errorf("%d sleep", got)
	}
	go func() { _, _ = s.near.Write([]byte("x")) }()
	s.far.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if got, err := s.far.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes passed a relay that stands still", got)
	}
	s.gate.Thaw()
	s.far.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := s.far.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	pass(t, s.near, s.far)
	n.asleep(2)
	// It ends while it stands still, and another process, which has its socket, reads on.
	if err := s.gate.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	elsewhere := duplicate(t, s.app)
	defer elsewhere.Close()
	s.gate.Leave()
	if err := <-s.over; !errors.Is(err, netx.ErrMoved) {
		t.Errorf("it ends with %v", err)
	}
	s.app.Close()
	n.asleep(1)
	go func() { _, _ = s.near.Write([]byte("y")) }()
	got := make([]byte, 1)
	elsewhere.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := elsewhere.Read(got); err != nil || got[0] != 'y' {
		t.Errorf("%q, %v", got, err)
	}
	s.stream.Reset()
	<-n.overs
	n.asleep(0)
}

// One that is stopped while the reason to end comes goes on to see it when it thaws.
func TestSleepersEndAfterAThaw(t *testing.T) {
	n := newNight(t)
	cause := errors.New("of this test")
	life := netx.NewLife(t.Context())
	s := n.open(life)
	n.asleep(2)
	if err := s.gate.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	life.End(cause)
	select {
	case err := <-s.over:
		t.Errorf("it ended with %v while it stood still", err)
	case <-time.After(20 * time.Millisecond):
	}
	s.gate.Thaw()
	if err := <-s.over; !errors.Is(err, cause) {
		t.Errorf("it ends with %v", err)
	}
	<-n.overs
	n.asleep(0)
}
