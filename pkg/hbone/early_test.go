package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"
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
	app, end := socketPair(t)
	done := make(chan error, 1)
	cc, _ := connect(t, handlerFunc(func(_ context.Context, _ *Request, w ResponseWriter) {
		s, err := w.Accept(nil)
		if err != nil {
			done <- err
			return
		}
		passed := make(chan error, 1)
		s.ForwardTo(app, new(atomic.Uint64), func(err error) { passed <- err })
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
