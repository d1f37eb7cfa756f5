package h2conn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func TestServerWithNetHTTP(t *testing.T) {
	addr := listen(t, echo, h2conn.ServerConfig{})
	tr := transport(t)
	for _, n := range []int{0, 1, 100, 16383, 16384, 70000, 3<<20 + 7} {
		for _, stream := range []bool{false, true} {
			sent := pattern(n)
			var body io.Reader = bytes.NewReader(sent)
			if stream {
				body = io.MultiReader(body)
			}
			r, _ := http.NewRequest("PUT", "http://"+addr+"/a?b=c", body)
			r.Header.Set("Foo", "bar")
			r.Header["Cookie"] = []string{"a=b", "c=d"}
			if stream {
				r.Trailer = http.Header{"X-Sum": {"7"}}
			}
			resp, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d: got %d bytes, %v", n, len(got), err)
			}
			if resp.Header.Get("X-At") != "PUT http://"+addr+"/a?b=c" || resp.Header.Get("X-Got-Foo") != "bar" || resp.Header.Get("X-Got-Cookie") != "a=b; c=d" {
				t.Errorf("header %v", resp.Header)
			}
			if !stream && resp.ContentLength != int64(n) {
				t.Errorf("content-length %d", resp.ContentLength)
			}
			if stream && resp.Trailer.Get("X-Sum") != "7" {
				t.Errorf("trailer %v", resp.Trailer)
			}
			resp.Body.Close()
		}
	}
}

// TestServerManyStreams: a thousand requests at a time, of all of which the bodies stand still until all are there.
func TestServerManyStreams(t *testing.T) {
	const n = 1000
	var mu sync.Mutex
	here := 0
	all := make(chan struct{})
	addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
		mu.Lock()
		if here++; here == n {
			close(all)
		}
		mu.Unlock()
		<-all
		echo(ctx, s)
	}, h2conn.ServerConfig{MaxConcurrentStreams: n})
	tr := transport(t)
	var wg sync.WaitGroup
	errs := make(chan error, n)
	// The first tells the transport how many streams there may be.
	for i := range n {
		wg.Go(func() {
			sent := pattern(i * 10)
			resp, err := tr.RoundTrip(must(http.NewRequest("POST", "http://"+addr+"/", bytes.NewReader(sent))))
			if err != nil {
				errs <- err
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, sent) {
				errs <- fmt.Errorf("got %d of %d bytes: %w", len(got), len(sent), err)
			}
		})
		if i == 0 {
			eventually(t, "first request", func() bool { mu.Lock(); defer mu.Unlock(); return here > 0 })
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestServerHeads(t *testing.T) {
	addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
		switch s.Request().Path {
		case "/none":
			_ = s.Respond(&httpmsg.Head{Status: 204, ContentLength: -1}, true)
		case "/hints":
			early := &httpmsg.Head{Status: 103, ContentLength: -1}
			early.Header.Add("link", "</x>")
			_ = s.Inform(early)
			h := &httpmsg.Head{Status: 200, ContentLength: -1}
			h.Header.Add("connection", "close")
			h.Header.Add("x-evil", "a\r\nb: c")
			h.Header.Add("Upper", "a")
			h.Header.Add("accept-encoding", "gzip, deflate")
			h.Header.Add("x-long", strings.Repeat("a", 20000))
			_ = s.Respond(h, true)
		case "/length":
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: 5}, false)
			_, _ = s.Write([]byte("hello"))
			_ = s.Finish(nil)
		case "/forget":
		case "/half":
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
			_, _ = s.Write([]byte("hello"))
		case "/reset":
			s.Reset(uint32(http2.ErrCodeEnhanceYourCalm))
		}
	}, h2conn.ServerConfig{})
	tr := transport(t)
	get := func(method, path string) (*http.Response, string, error) {
		resp, err := tr.RoundTrip(must(http.NewRequest(method, "http://"+addr+path, nil)))
		if err != nil {
			return nil, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp, string(body), err
	}
	if r, _, err := get("GET", "/none"); err != nil || r.StatusCode != 204 || r.Header.Get("Content-Length") != "" {
		t.Error(r, err)
	}
	if r, _, err := get("GET", "/hints"); err != nil || r.StatusCode != 200 || len(r.Header) != 2 || len(r.Header.Get("X-Long")) != 20000 || r.Header.Get("Accept-Encoding") != "gzip, deflate" {
		t.Error(r, err)
	}
	if r, body, err := get("HEAD", "/length"); err != nil || r.ContentLength != 5 || body != "" {
		t.Error(r, err)
	}
	if r, body, err := get("GET", "/length"); err != nil || r.ContentLength != 5 || body != "hello" {
		t.Error(r, err)
	}
	for path, code := range map[string]http2.ErrCode{"/forget": http2.ErrCodeInternal, "/half": http2.ErrCodeInternal, "/reset": http2.ErrCodeEnhanceYourCalm} {
		_, _, err := get("GET", path)
		var se http2.StreamError
		if !errors.As(err, &se) || se.Code != code {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestServerExpect(t *testing.T) {
	addr := listen(t, echo, h2conn.ServerConfig{})
	tr := transport(t)
	r, _ := http.NewRequest("POST", "http://"+addr+"/", strings.NewReader("hello"))
	r.Header.Set("Expect", "100-continue")
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "hello" || err != nil {
		t.Error(string(got), err)
	}
}

// TestServerEarlyResponse: the client may stop sending when it is answered.
func TestServerEarlyResponse(t *testing.T) {
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		_ = s.Respond(&httpmsg.Head{Status: 413, ContentLength: 0}, true)
	}, h2conn.ServerConfig{})
	tr := transport(t)
	for range 20 { // more than the connection's window, were it not given back
		r, w := io.Pipe()
		go func() { _, _ = io.CopyN(w, zeros{}, 2<<20); w.Close() }()
		resp, err := tr.RoundTrip(must(http.NewRequest("POST", "http://"+addr+"/", r)))
		if err != nil || resp.StatusCode != 413 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		r.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestServerGone(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan error)
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		close(entered)
		<-s.Gone()
		_, err := s.Read(make([]byte, 1))
		gone <- err
	}, h2conn.ServerConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		<-entered
		cancel()
	}()
	if _, err := transport(t).RoundTrip(must(http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/", r))); err == nil {
		t.Error("answered")
	}
	if err := <-gone; !errors.Is(err, httpmsg.ErrReset) {
		t.Error(err)
	}
}

// TestServerSlowReader: a client that does not read one response gets others.
func TestServerSlowReader(t *testing.T) {
	addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
		if s.Request().Path != "/big" {
			echo(ctx, s)
			return
		}
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
		_, _ = s.Write(pattern(8 << 20))
		_ = s.Finish(nil)
	}, h2conn.ServerConfig{})
	tr := transport(t)
	big, err := tr.RoundTrip(must(http.NewRequest("GET", "http://"+addr+"/big", nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Body.Close()
	for range 100 {
		resp, err := tr.RoundTrip(must(http.NewRequest("POST", "http://"+addr+"/", bytes.NewReader(pattern(50000)))))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); len(got) != 50000 || err != nil {
			t.Fatal(len(got), err)
		}
		resp.Body.Close()
	}
	if got, err := io.ReadAll(big.Body); !bytes.Equal(got, pattern(8<<20)) || err != nil {
		t.Error(len(got), err)
	}
}

func TestServerDrain(t *testing.T) {
	drain, begin := context.WithCancel(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	served := make(chan error, 10)
	addr := accept(t, func(ctx context.Context, c netConn) {
		served <- h2conn.Serve(ctx, c, func(ctx context.Context, s httpmsg.ServerStream) {
			close(entered)
			<-leave
			echo(ctx, s)
		}, h2conn.ServerConfig{Drain: drain})
	})
	idle := dialClient(t, addr, h2conn.ClientConfig{})
	busy := dialClient(t, addr, h2conn.ClientConfig{})
	s, err := busy.Open(t.Context(), request("POST", "/", -1), false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.Flush()
	<-entered
	begin()
	for _, k := range []httpmsg.ClientConn{idle, busy} {
		select {
		case <-k.Done():
		case <-time.After(30 * time.Second):
			t.Fatal("no GOAWAY")
		}
		if _, err := k.Open(t.Context(), request("GET", "/", -1), true); !errors.Is(err, httpmsg.ErrNotSent) || k.Free() != 0 {
			t.Error(err)
		}
	}
	close(leave)
	_, _ = s.Write([]byte("hello"))
	_ = s.Finish(nil)
	h, err := s.Response(t.Context(), nil)
	if err != nil || h.Status != 200 {
		t.Fatal(h, err)
	}
	if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
		t.Error(string(got), err)
	}
	for range 2 {
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func TestServerIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- h2conn.Serve(t.Context(), theirs, echo, h2conn.ServerConfig{IdleTimeout: 30 * time.Millisecond})
		}()
		k, err := h2conn.NewClient(ours, h2conn.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := k.Open(t.Context(), request("GET", "/", -1), false)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Flush()
		select {
		case <-k.Done():
			t.Error("closed while busy")
		case <-time.After(time.Second):
		}
		s.Close()
		<-k.Done()
		k.Close()
		<-served
	})
}
