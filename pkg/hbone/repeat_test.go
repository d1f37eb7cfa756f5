package hbone

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// answerer is a peer that reads until the CONNECT and all of its early bytes are here, and does something else than to accept.
func answerer(t *testing.T, early int, do func(f *http2.Framer, id uint32)) *ClientConn {
	t.Helper()
	a, b := carrier(t)
	cc, err := NewClientConn(a, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		defer b.Close()
		b.SetDeadline(time.Now().Add(30 * time.Second))
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(b, preface); err != nil {
			t.Error(err)
			return
		}
		f := http2.NewFramer(b, b)
		if err := f.WriteSettings(); err != nil {
			t.Error(err)
			return
		}
		for id, got := uint32(0), 0; id == 0 || got < early; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Error(err)
				return
			}
			switch frame := frame.(type) {
			case *http2.HeadersFrame:
				id = frame.StreamID
			case *http2.DataFrame:
				got += len(frame.Data())
			}
			if id != 0 && got >= early {
				do(f, id)
			}
		}
	}()
	return cc
}

// Whether a request that failed may be repeated depends on what the peer said, and on whether it got any of the content.
func TestWhatMayBeRepeated(t *testing.T) {
	hangUp := func(*http2.Framer, uint32) {}
	reset := func(code http2.ErrCode) func(*http2.Framer, uint32) {
		return func(f *http2.Framer, id uint32) { _ = f.WriteRSTStream(id, code) }
	}
	goAway := func(last uint32) func(*http2.Framer, uint32) {
		return func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(last, http2.ErrCodeNo, nil) }
	}
	for _, tt := range []struct {
		name                string
		early               int
		do                  func(*http2.Framer, uint32)
		notSent, unanswered bool
	}{
		{"the connection ends", 0, hangUp, false, true},
		{"the connection ends, content was sent", 10, hangUp, false, false},
		{"reset", 0, reset(http2.ErrCodeInternal), false, true},
		{"reset, content was sent", 10, reset(http2.ErrCodeInternal), false, false},
		{"refused", 0, reset(http2.ErrCodeRefusedStream), true, false},
		{"refused, content was sent", 10, reset(http2.ErrCodeRefusedStream), true, false},
		{"goes away before it", 10, goAway(0), true, false},
		{"goes away after it, and ends", 10, goAway(1), false, false},
		{"goes away after it, and ends, no content", 0, goAway(1), false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cc := answerer(t, tt.early, tt.do)
			_, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", Early: make([]byte, tt.early)})
			if err == nil || errors.Is(err, ErrNotSent) != tt.notSent || errors.Is(err, ErrUnanswered) != tt.unanswered {
				t.Errorf("%v; not sent %t, unanswered %t", err, tt.notSent, tt.unanswered)
			}
		})
	}
}

// An application that sent so much that it could not all go with the request is usable after a failure: no deadline is left on it.
func TestFailureLeavesTheApplicationUsable(t *testing.T) {
	for _, early := range []int{0, 10, EarlySize + 1} {
		app, end := tcp.Pair(t)
		cc := answerer(t, min(early, EarlySize)%EarlySize, func(*http2.Framer, uint32) {})
		_, _, err := cc.Connect(deadline(t), &Request{
			Authority: "10.0.0.1:80", Early: make([]byte, early), App: app, Received: new(netx.Counter),
		})
		if err == nil {
			t.Fatal("accepted by nobody")
		}
		if errors.Is(err, ErrUnanswered) != (early != 10) {
			t.Errorf("%d early bytes: %v", early, err)
		}
		cc, _ = connect(t, handlerFunc(echo), ServerConfig{})
		go func() {
			_, _ = end.Write([]byte("hello"))
			_ = end.CloseWrite()
		}()
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", Early: make([]byte, early), App: app, Received: new(netx.Counter)})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			var sent netx.Counter
			_ = s.CopyFrom(app, &sent, nil)
			_ = s.CloseWrite()
		}()
		end.SetDeadline(time.Now().Add(30 * time.Second))
		got := make([]byte, early+len("hello"))
		if _, err := io.ReadFull(end, got); err != nil || !bytes.HasSuffix(got, []byte("hello")) {
			t.Errorf("%d early bytes: %q, %v", early, got, err)
		}
		s.Close()
	}
}

func TestPoolTellsThatAPeerIsUnreachable(t *testing.T) {
	broken := errors.New("connection refused")
	p := NewPool(func(context.Context, PoolKey) (net.Conn, error) { return nil, broken }, PoolConfig{})
	defer p.Close()
	_, _, err := p.Connect(deadline(t), &PoolKey{}, &Request{Authority: "10.0.0.1:80"})
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, broken) || errors.Is(err, ErrImpatient) {
		t.Error(err)
	}
	cc := answerer(t, 0, func(*http2.Framer, uint32) {})
	if _, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80"}); errors.Is(err, ErrUnreachable) {
		t.Errorf("a peer that was reached: %v", err)
	}
}

// A request that gives up waiting leaves the dial to others.
func TestPoolPatience(t *testing.T) {
	release := make(chan struct{})
	var dials atomic.Int32
	p := NewPool(func(ctx context.Context, _ PoolKey) (net.Conn, error) {
		dials.Add(1)
		select {
		case <-release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		a, b := tcp.Pair(t)
		go ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{})
		return a, nil
	}, PoolConfig{DialTimeout: time.Minute})
	defer p.Close()
	key := PoolKey{Dest: netip.MustParseAddrPort("10.0.0.1:15008")}
	_, _, err := p.Connect(deadline(t), &key, &Request{Authority: "10.0.0.1:80", Patience: time.Millisecond})
	if !errors.Is(err, ErrImpatient) || !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	close(release)
	s, _, err := p.Connect(deadline(t), &key, &Request{Authority: "10.0.0.1:80"})
	if err != nil || dials.Load() != 1 {
		t.Fatalf("%d dials: %v", dials.Load(), err)
	}
	s.Close()
}
