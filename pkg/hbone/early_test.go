package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// The first bytes of a tunnel go with its request, and arrive once, in order, whatever their number.
func TestEarlyBytesComeFirst(t *testing.T) {
	cc, _ := connect(t, handlerFunc(echo), ServerConfig{})
	for _, size := range []int{0, 1, EarlySize, EarlySize + 1, 300_000} {
		want := make([]byte, size+100)
		rand.Read(want)
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", Early: want[:size]})
		if err != nil {
			t.Fatalf("%d early bytes: %v", size, err)
		}
		go func() {
			s.Write(want[size:])
			s.CloseWrite()
		}()
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d early bytes: %d of %d came back, as sent: %t, error %v", size, len(got), len(want), bytes.Equal(got, want), err)
		}
		s.Close()
	}
}

// They pass to a socket as what comes later does.
func TestEarlyBytesAreForwarded(t *testing.T) {
	app, end := tcp.Pair(t)
	done := make(chan error, 1)
	cc, _ := connect(t, handlerFunc(func(_ context.Context, _ *Request, w ResponseWriter) {
		s, err := w.Accept(nil)
		if err != nil {
			done <- err
			return
		}
		passed := make(chan error, 1)
		s.ForwardTo(app, new(netx.Counter), func(err error) { passed <- err })
		done <- <-passed
	}), ServerConfig{})
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", Early: []byte("first ")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	s.CloseWrite()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	app.CloseWrite()
	got, err := io.ReadAll(end)
	if err != nil || string(got) != "first second" {
		t.Errorf("%q, %v", got, err)
	}
}

// A refused tunnel gives the connection's window back: early bytes that nobody read must not starve the others.
func TestRefusedEarlyBytesAreGivenBack(t *testing.T) {
	cc, _ := connect(t, handlerFunc(echo), ServerConfig{})
	early := make([]byte, EarlySize)
	for range 2 * connWindow / EarlySize {
		_, _, err := cc.Connect(deadline(t), &Request{Authority: "refuse:1", Early: early})
		var refused *StatusError
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
	}
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", Early: early})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, s, EarlySize); err != nil {
		t.Fatal(err)
	}
	if err := exchange(s, 1<<20); err != nil {
		t.Error(err)
	}
	s.Close()
}

// An application that only waits for an answer gets it while Connect still waits for the application.
func TestAnswersReachAnApplicationThatIsSilent(t *testing.T) {
	cc, _ := connect(t, handlerFunc(func(_ context.Context, _ *Request, w ResponseWriter) {
		s, err := w.Accept(nil)
		if err != nil {
			return
		}
		io.WriteString(s, "hello")
		io.Copy(s, s)
		s.CloseWrite()
	}), ServerConfig{})
	app, end := tcp.Pair(t)
	type result struct {
		s   *Stream
		err error
	}
	opened := make(chan result, 1)
	var received netx.Counter
	go func() {
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", App: app, Received: &received})
		opened <- result{s, err}
	}()
	got := make([]byte, 5)
	if _, err := io.ReadFull(end, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	select {
	case r := <-opened:
		t.Fatalf("Connect returned before the application had anything to say: %v", r.err)
	default:
	}
	io.WriteString(end, "and more")
	end.CloseWrite()
	r := <-opened
	if r.err != nil {
		t.Fatal(r.err)
	}
	if err := netx.Relay(t.Context(), app, r.s, nil); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(end)
	if err != nil || string(rest) != "and more" {
		t.Errorf("%q, %v", rest, err)
	}
	if received.Load() != 13 {
		t.Errorf("counted %d bytes", received.Load())
	}
}

// Whatever goes wrong with the tunnel, Connect does not stay with a silent application.
func TestFailuresReachAnApplicationThatIsSilent(t *testing.T) {
	h := handlerFunc(func(ctx context.Context, r *Request, w ResponseWriter) {
		switch r.Authority {
		case "refuse:1":
			w.Refuse(401, nil)
		case "silent:1":
			<-ctx.Done()
		case "reset:1", "end:1":
			s, err := w.Accept(nil)
			if err != nil {
				return
			}
			if r.Authority == "reset:1" {
				s.Reset()
			} else {
				s.CloseWrite()
				io.Copy(io.Discard, s)
			}
		}
	})
	for name, tt := range map[string]struct {
		authority string
		patience  time.Duration
		opened    bool
		relayed   bool // without an error
	}{
		"a refusal":        {"refuse:1", time.Minute, false, false},
		"no answer":        {"silent:1", 50 * time.Millisecond, false, false},
		"a reset":          {"reset:1", time.Minute, true, false},
		"the peer's end":   {"end:1", time.Minute, true, true},
		"a late, but good": {"end:1", 50 * time.Millisecond, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			cc, _ := connect(t, h, ServerConfig{})
			app, end := tcp.Pair(t)
			connect := func(patience time.Duration) (*Stream, error) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				s, _, err := cc.Connect(ctx, &Request{Authority: tt.authority, App: app, Received: new(netx.Counter)})
				return s, err
			}
			s, err := connect(tt.patience)
			for patience := tt.patience; tt.opened && errors.Is(err, context.DeadlineExceeded) && patience < time.Minute; {
				patience *= 10 // the machine was not fast enough
				s, err = connect(patience)
			}
			if (err == nil) != tt.opened {
				t.Fatalf("opened: %v", err)
			}
			if err != nil {
				// The socket is as it was.
				go io.WriteString(end, "x")
				if _, err := app.Read(make([]byte, 1)); err != nil {
					t.Errorf("the application's socket: %v", err)
				}
				return
			}
			relayed := make(chan error, 1)
			go func() { relayed <- netx.Relay(t.Context(), app, s, nil) }()
			if tt.relayed {
				if _, err := end.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the peer's end did not arrive: %v", err)
				}
			}
			end.Close()
			if err := <-relayed; (err == nil) != tt.relayed {
				t.Errorf("relayed: %v", err)
			}
		})
	}
}

// The connection that carries the tunnel breaks while the application is silent, before and after the answer.
func TestABrokenConnectionReachesASilentApplication(t *testing.T) {
	for _, accept := range []bool{false, true} {
		reached := make(chan struct{})
		cc, _ := connect(t, handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
			if accept {
				s, err := w.Accept(nil)
				if err == nil {
					io.WriteString(s, "x")
				}
			}
			close(reached)
			<-ctx.Done()
		}), ServerConfig{})
		app, end := tcp.Pair(t)
		go func() {
			<-reached
			if accept {
				io.ReadFull(end, make([]byte, 1))
			}
			cc.Close()
		}()
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", App: app, Received: new(netx.Counter)})
		if err == nil {
			err = netx.Relay(t.Context(), app, s, nil)
		}
		if err == nil {
			t.Errorf("accepted before: %t: nobody noticed", accept)
		}
	}
}
