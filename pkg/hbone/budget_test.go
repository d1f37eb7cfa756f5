package hbone

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// purse is a Budget that slows down and cuts from given amounts on; 0 is never. Its heavy work takes turns if there are any.
type purse struct {
	held, most, slow, cut atomic.Int64
	turns                 *netx.Taker
}

func (p *purse) Turns() *netx.Taker { return p.turns }

func (p *purse) Hold(n int64) {
	now := p.held.Add(n)
	for most := p.most.Load(); now > most && !p.most.CompareAndSwap(most, now); most = p.most.Load() {
	}
}

func (p *purse) Pressure() Pressure {
	held := p.held.Load()
	switch cut, slow := p.cut.Load(), p.slow.Load(); {
	case cut > 0 && held >= cut:
		return Cut
	case slow > 0 && held >= slow:
		return Slow
	}
	return Relaxed
}

func (p *purse) until(t *testing.T, what string, ok func(held int64) bool) {
	t.Helper()
	wait.Until(t, 30*time.Second, what, func() bool { return ok(p.held.Load()) }, nil)
}

// slowReader accepts tunnels and reads one only when read is closed; what came of it is told by ended.
type slowReader struct {
	read  chan struct{}
	ended chan error
	bytes atomic.Int64
}

func newSlowReader() *slowReader {
	return &slowReader{read: make(chan struct{}), ended: make(chan error, 64)}
}

func (r *slowReader) ServeCONNECT(ctx context.Context, q *Request, w ResponseWriter) {
	if q.Authority == "echo:1" {
		echo(ctx, q, w)
		return
	}
	s, err := w.Accept(nil)
	if err != nil {
		r.ended <- err
		return
	}
	select {
	case <-r.read:
	case <-ctx.Done():
	}
	n, err := io.Copy(io.Discard, struct{ io.Reader }{s})
	r.bytes.Add(n)
	r.ended <- err
}

// feed writes n bytes to a new stream and ends it, in the background.
func feed(t *testing.T, cc *ClientConn, n int) (*Stream, <-chan error) {
	t.Helper()
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "slow:1"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Write(make([]byte, n))
		if err == nil {
			err = s.CloseWrite()
		}
		done <- err
	}()
	return s, done
}

func TestWhatWaitsIsCharged(t *testing.T) {
	const n = 1 << 20
	for _, read := range []bool{true, false} {
		p, handler := &purse{}, newSlowReader()
		cc, _ := connect(t, handler, ServerConfig{Budget: p})
		s, done := feed(t, cc, n)
		p.until(t, "all that waits is charged", func(held int64) bool { return held == n })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if read {
			close(handler.read)
			if err := <-handler.ended; err != nil || handler.bytes.Load() != n {
				t.Errorf("%d bytes read, %v", handler.bytes.Load(), err)
			}
		} else {
			s.Reset()
			cc.Close()
		}
		p.until(t, "what is read or dropped is charged no more", func(held int64) bool { return held == 0 })
	}
}

func TestPressureSlowsPeersDown(t *testing.T) {
	p, handler := &purse{}, newSlowReader()
	p.slow.Store(1)
	cc, _ := connect(t, handler, ServerConfig{Budget: p})
	const streams, each = 6, streamWindow
	var fed []<-chan error
	for range streams {
		_, done := feed(t, cc, each)
		fed = append(fed, done)
	}
	p.until(t, "the window is used up", func(held int64) bool { return held == connWindow })
	close(handler.read)
	for i := range streams {
		if err := errors.Join(<-fed[i], <-handler.ended); err != nil {
			t.Error(err)
		}
	}
	if got := handler.bytes.Load(); got != streams*each {
		t.Errorf("%d bytes arrived", got)
	}
	if most := p.most.Load(); most > connWindow {
		t.Errorf("%d bytes held, though the connection's window is %d", most, connWindow)
	}
	p.until(t, "nothing is held", func(held int64) bool { return held == 0 })
}

func TestAStreamThatHoardsIsCut(t *testing.T) {
	p, handler := &purse{}, newSlowReader()
	p.cut.Store(1 << 20)
	cc, _ := connect(t, handler, ServerConfig{Budget: p})
	other, _, err := cc.Connect(deadline(t), &Request{Authority: "echo:1"})
	if err != nil {
		t.Fatal(err)
	}
	s, done := feed(t, cc, 3<<20)
	if err := <-handler.ended; !errors.Is(err, ErrOverBudget) {
		t.Errorf("the handler was told %v", err)
	}
	<-done // it may all have been sent before
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
		t.Errorf("the peer was told %v", err)
	}
	p.until(t, "nothing is held", func(held int64) bool { return held == 0 })
	if err := exchange(other, 100_000); err != nil {
		t.Errorf("another stream suffers: %v", err)
	}
	if most := p.most.Load(); most > 1<<20+maxFrame {
		t.Errorf("%d bytes were held", most)
	}
}

// Senders hold what they have read and cannot send.
func TestSendersThatWaitAreCharged(t *testing.T) {
	for _, cut := range []bool{false, true} {
		p, ended := &purse{}, make(chan error, 1)
		app, near := tcp.Pair(t)
		cc, _ := connect(t, handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
			s, err := w.Accept(nil)
			if err == nil {
				err = netx.Relay(ctx, s, near, nil)
			}
			ended <- err
		}), ServerConfig{Budget: p})
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
		if err != nil {
			t.Fatal(err)
		}
		if cut {
			p.cut.Store(1)
			p.Hold(1)
		}
		fed := make(chan error, 1)
		go func() {
			buf := make([]byte, 64<<10)
			for {
				if _, err := app.Write(buf); err != nil {
					fed <- err
					return
				}
			}
		}()
		if cut {
			if err := <-ended; !errors.Is(err, ErrOverBudget) {
				t.Errorf("the relay ended with %v", err)
			}
			if _, err := io.Copy(io.Discard, struct{ io.Reader }{s}); !errors.Is(err, ErrReset) {
				t.Errorf("the peer was told %v", err)
			}
			p.Hold(-1)
		} else {
			p.until(t, "what the sender holds is charged", func(held int64) bool { return held > 0 })
			cc.Close()
			<-ended
		}
		<-fed
		app.Close()
		p.until(t, "nothing is held", func(held int64) bool { return held == 0 })
	}
}
