package h2conn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// accept hands the connections of a loopback port to serve until the test ends, and checks that each of them ended.
func accept(t testing.TB, serve func(context.Context, net.Conn)) string {
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
				serve(ctx, c)
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

// listen serves h by us.
func listen(t testing.TB, h httpmsg.Handler, cfg h2conn.ServerConfig) string {
	t.Helper()
	return accept(t, func(ctx context.Context, c net.Conn) { _ = h2conn.Serve(ctx, c, h, cfg) })
}

// oracle serves h by net/http, to so many requests at a time.
func oracle(t testing.TB, h http.Handler, streams int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams}}
	srv.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() { srv.Close(); <-ended })
	return l.Addr().String()
}

// transport speaks HTTP/2 by net/http.
func transport(t testing.TB) *http.Transport {
	tr := &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true}, DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func dialRaw(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dialClient(t testing.TB, addr string, cfg h2conn.ClientConfig) httpmsg.ClientConn {
	t.Helper()
	k, err := h2conn.NewClient(dialRaw(t, addr), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func request(method, path string, length int64) *httpmsg.Head {
	return &httpmsg.Head{Method: method, Scheme: "http", Path: path, Authority: "example.com", ContentLength: length}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// echo answers with what it got.
func echo(_ context.Context, s httpmsg.ServerStream) {
	r := s.Request()
	h := &httpmsg.Head{Status: 200, ContentLength: r.ContentLength}
	h.Header.Add("x-at", r.Method+" "+r.Scheme+"://"+r.Authority+r.Path)
	for k, v := range r.Header.All() {
		h.Header.Add("x-got-"+k, v)
	}
	if s.Ended() {
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

type netConn = net.Conn

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, ok, nil)
}
