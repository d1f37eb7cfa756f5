package h1_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// listen serves h on a loopback port until the test ends, and checks that every connection ended.
func listen(t testing.TB, h httpmsg.Handler, cfg h1.ServerConfig) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var conns []chan struct{}
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			done := make(chan struct{})
			conns = append(conns, done)
			go func() {
				defer close(done)
				_ = h1.Serve(ctx, c, h, cfg)
			}()
		}
		for _, d := range conns {
			<-d
		}
	}()
	t.Cleanup(func() {
		l.Close()
		cancel()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("connections did not end")
		}
	})
	return l.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	return c.(*net.TCPConn)
}

func dialClient(t testing.TB, addr string) httpmsg.ClientConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	k := h1.NewClient(c, h1.ClientConfig{})
	t.Cleanup(func() { k.Close() })
	return k
}

// echo answers with what it got.
func echo(_ context.Context, s httpmsg.ServerStream) {
	r := s.Request()
	h := &httpmsg.Head{Status: 200, ContentLength: r.ContentLength}
	h.Header.Add("x-method", r.Method)
	h.Header.Add("x-path", r.Path)
	h.Header.Add("x-authority", r.Authority)
	h.Header.Add("x-scheme", r.Scheme)
	for k, v := range r.Header.All() {
		h.Header.Add("x-got-"+k, v)
	}
	if s.Ended() {
		h.ContentLength = 0
		_ = s.Respond(h, true)
		return
	}
	if err := s.Respond(h, false); err != nil {
		return
	}
	if pump(s, s) != nil {
		s.Reset(2)
	}
}

// pump copies a body as a proxy does.
func pump(dst httpmsg.Outgoing, src httpmsg.Incoming) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return dst.Finish(src.Trailer())
		}
		if err != nil {
			return err
		}
		if err := dst.Flush(); err != nil {
			return err
		}
	}
}
