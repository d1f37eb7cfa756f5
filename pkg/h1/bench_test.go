package h1_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// proxyTo is the smallest proxy: one connection upstream for each downstream.
func proxyTo(addr string) httpmsg.Handler {
	free := make(chan httpmsg.ClientConn, 64)
	return func(ctx context.Context, s httpmsg.ServerStream) {
		var k httpmsg.ClientConn
		select {
		case k = <-free:
		default:
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			k = h1.NewClient(c, h1.ClientConfig{})
		}
		if relay(context.Background(), k, s) != nil {
			k.Close()
			return
		}
		free <- k
	}
}

func relay(ctx context.Context, k httpmsg.ClientConn, s httpmsg.ServerStream) error {
	_ = s.Gone()
	up, err := k.Open(ctx, s.Request(), s.Ended())
	if err != nil {
		return err
	}
	defer up.Close()
	var buf [2048]byte
	if !s.Ended() {
		if err := copyBody(up, s, buf[:]); err != nil {
			return err
		}
	}
	h, err := up.Response(ctx, nil)
	if err != nil {
		return err
	}
	if up.Ended() {
		return s.Respond(h, true)
	}
	if err := s.Respond(h, false); err != nil {
		return err
	}
	return copyBody(s, up, buf[:])
}

func copyBody(dst httpmsg.Outgoing, src httpmsg.Incoming, buf []byte) error {
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return dst.Finish(src.Trailer())
		case err != nil:
			return err
		}
		if err := dst.Flush(); err != nil {
			return err
		}
	}
}

const wireRequest = "POST /api/v1/things?id=7 HTTP/1.1\r\nHost: reviews.default.svc.cluster.local:9080\r\nUser-Agent: bench/1\r\nAccept: */*\r\nX-Request-Id: 0f8fad5b-d9cb-469f-a165-70867728950e\r\nContent-Type: application/octet-stream\r\nContent-Length: 1024\r\n\r\n"

// drive sends requests of 1 KiB one after the other over one connection.
func drive(b *testing.B, addr string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	out := append([]byte(wireRequest), make([]byte, 1024)...)
	in := make([]byte, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		for got, want := 0, len(in); got < want; {
			n, err := c.Read(in[got:])
			if err != nil {
				b.Fatal(err)
			}
			got += n
			if head := bytes.Index(in[:got], []byte("\r\n\r\n")); head >= 0 {
				want = head + 4 + 1024
			}
		}
	}
}

func upstream(b *testing.B) string {
	return listen(b, func(_ context.Context, s httpmsg.ServerStream) {
		var buf [2048]byte
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: 1024}, false)
		_ = copyBody(s, s, buf[:])
	}, h1.ServerConfig{})
}

func BenchmarkProxy(b *testing.B) { drive(b, listen(b, proxyTo(upstream(b)), h1.ServerConfig{})) }

func BenchmarkReverseProxy(b *testing.B) {
	u, _ := url.Parse("http://" + upstream(b))
	proxy := httptest.NewServer(httputil.NewSingleHostReverseProxy(u))
	defer proxy.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	drive(b, proxy.Listener.Addr().String())
}

func BenchmarkDirect(b *testing.B) { drive(b, upstream(b)) }
