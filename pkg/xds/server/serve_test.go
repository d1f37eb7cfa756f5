package server

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// TestServeTakesTurns drives the two sides of a stream without a network.
func TestServeTakesTurns(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name      string
		ends      error // what receive ends with
		request   error // what the request fails with
		push      error
		want      error
		unhandled bool // the request comes when the stream has failed
	}{
		{name: "the client leaves", ends: io.EOF},
		{name: "the context ends", ends: context.Canceled},
		{name: "the connection breaks", ends: broken, want: broken},
		{name: "a request fails", request: broken, ends: io.EOF, want: broken},
		{name: "a push fails", push: broken, ends: io.EOF, want: broken, unhandled: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := &stream{wake: make(chan struct{}, 1)}
			incoming, pushed, requested := make(chan int), make(chan struct{}, 2), 0
			receive := func() (int, error) {
				if n, more := <-incoming; more {
					return n, nil
				}
				return 0, c.ends
			}
			result := make(chan error, 1)
			go func() {
				result <- serve(st, receive, func(int) error { requested++; return c.request }, func() error { pushed <- struct{}{}; return c.push })
			}()
			st.wakeUp(time.Now())
			if c.push == nil {
				<-pushed
				incoming <- 1
				if c.request == nil {
					close(incoming)
				}
			}
			err := <-result
			if !errors.Is(err, c.want) || err == nil != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.unhandled {
				incoming <- 1 // gRPC would end the context, thus the reception: it may still have something
			}
			if requested == 1 == c.unhandled {
				t.Errorf("%d requests", requested)
			}
		})
	}
}
