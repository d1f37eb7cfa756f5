package h2conn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func relay(ctx context.Context, k httpmsg.ClientConn, s httpmsg.ServerStream, buf []byte) error {
	up, err := k.Open(ctx, s.Request(), s.Ended())
	if err != nil {
		return err
	}
	defer up.Close()
	if !s.Ended() {
		if err := copyBody(up, s, buf); err != nil {
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
	return copyBody(s, up, buf)
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

// drive sends requests of 1 KiB over one connection, a number of them at a time.
func drive(b *testing.B, addr string, streams int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	k, err := h2conn.NewClient(c, h2conn.ClientConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	body := make([]byte, 1024)
	todo := make(chan struct{}, streams)
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			buf := make([]byte, 2048)
			h := request("POST", "/api/v1/things?id=7", 1024)
			h.Header.Add("user-agent", "bench/1")
			h.Header.Add("accept", "*/*")
			h.Header.Add("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e")
			h.Header.Add("content-type", "application/octet-stream")
			for range todo {
				s, err := k.Open(context.Background(), h, false)
				if err != nil {
					b.Error(err)
					continue
				}
				_, _ = s.Write(body)
				_ = s.Finish(nil)
				if _, err := s.Response(context.Background(), nil); err != nil {
					b.Error(err)
				}
				n := 0
				for err == nil {
					var k int
					k, err = s.Read(buf)
					n += k
				}
				if n != 1024 {
					b.Errorf("%d bytes, %v", n, err)
				}
				s.Close()
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	wg.Wait()
}

func upstream(b *testing.B) string {
	pool := sync.Pool{New: func() any { return make([]byte, 2048) }}
	return listen(b, func(_ context.Context, s httpmsg.ServerStream) {
		buf := pool.Get().([]byte)
		defer pool.Put(buf) //nolint:staticcheck // a benchmark
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: 1024}, false)
		_ = copyBody(s, s, buf)
	}, h2conn.ServerConfig{MaxConcurrentStreams: 250})
}

func ourProxy(b *testing.B) string {
	c, err := net.Dial("tcp", upstream(b))
	if err != nil {
		b.Fatal(err)
	}
	k, err := h2conn.NewClient(c, h2conn.ClientConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	for k.Free() < 200 {
		<-time.After(time.Millisecond)
	}
	pool := sync.Pool{New: func() any { return make([]byte, 2048) }}
	return listen(b, func(ctx context.Context, s httpmsg.ServerStream) {
		buf := pool.Get().([]byte)
		defer pool.Put(buf) //nolint:staticcheck // a benchmark
		if err := relay(ctx, k, s, buf); err != nil {
			b.Error(err)
		}
	}, h2conn.ServerConfig{MaxConcurrentStreams: 250})
}

func netHTTPProxy(b *testing.B) string {
	u, _ := url.Parse("http://" + upstream(b))
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.Transport = transport(b)
	return oracle(b, http.Handler(proxy), 250)
}

func BenchmarkProxy1(b *testing.B)        { drive(b, ourProxy(b), 1) }
func BenchmarkProxy32(b *testing.B)       { drive(b, ourProxy(b), 32) }
func BenchmarkNetHTTPProxy1(b *testing.B) { drive(b, netHTTPProxy(b), 1) }
func BenchmarkNetHTTPProxy32(b *testing.B) {
	drive(b, netHTTPProxy(b), 32)
}
func BenchmarkDirect1(b *testing.B)  { drive(b, upstream(b), 1) }
func BenchmarkDirect32(b *testing.B) { drive(b, upstream(b), 32) }

// BenchmarkBulk reads a long response.
func BenchmarkBulk(b *testing.B) {
	piece := make([]byte, 64<<10)
	addr := listen(b, func(_ context.Context, s httpmsg.ServerStream) {
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
		for {
			if _, err := s.Write(piece); err != nil {
				return
			}
		}
	}, h2conn.ServerConfig{})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	k, _ := h2conn.NewClient(c, h2conn.ClientConfig{})
	defer k.Close()
	s, err := k.Open(context.Background(), request("GET", "/", -1), true)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Response(context.Background(), nil); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	b.SetBytes(64 << 10)
	for b.Loop() {
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
	}
}
