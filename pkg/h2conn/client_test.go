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
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// exchange sends a request and returns the response and its body.
func exchange(ctx context.Context, k httpmsg.ClientConn, h *httpmsg.Head, body []byte) (*httpmsg.Head, []byte, *httpmsg.Header, error) {
	s, err := k.Open(ctx, h, body == nil)
	if err != nil {
		return nil, nil, nil, err
	}
	defer s.Close()
	sent := make(chan error, 1)
	go func() {
		if body == nil {
			sent <- nil
			return
		}
		_, err := s.Write(body)
		t := &httpmsg.Header{}
		t.Add("x-up", "6")
		sent <- errors.Join(err, s.Finish(t))
	}()
	got, err := s.Response(ctx, nil)
	if err != nil {
		s.Cancel()
		return nil, nil, nil, errors.Join(err, <-sent)
	}
	own := *got // got is the stream's
	own.Header = httpmsg.Header{}
	own.Header.CopyFrom(&got.Header)
	all, err := io.ReadAll(s)
	return &own, all, s.Trailer(), errors.Join(err, <-sent)
}

func TestClientWithNetHTTP(t *testing.T) {
	addr := oracle(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" || r.Header.Get("A") != "b" || r.URL.RequestURI() != "/x?y" {
			t.Errorf("request %+v", r)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Sum", "5"+r.Trailer.Get("X-Up"))
	}), 250)
	k := dialClient(t, addr, h2conn.ClientConfig{})
	for _, n := range []int{-1, 0, 1, 1000, 16384, 70000, 3 << 20} {
		for _, length := range []int64{-1, int64(n)} {
			h := request("POST", "/x?y", length)
			h.Header.Add("a", "b")
			h.Header.Add("trailer", "x-up")
			var sent []byte
			if n >= 0 {
				sent = pattern(n)
			}
			got, body, trailer, err := exchange(t.Context(), k, h, sent)
			if err != nil || got.Status != 200 || !bytes.Equal(body, sent) {
				t.Fatalf("%d %d: %+v, %d bytes, %v", n, length, got, len(body), err)
			}
			if want := map[bool]string{true: "5", false: "56"}[n < 0]; trailer == nil || trailer.Value("x-sum") != want {
				t.Errorf("trailer %v", trailer)
			}
		}
	}
	if k.Active() != 0 || k.Free() < 100 {
		t.Errorf("active %d, free %d", k.Active(), k.Free())
	}
}

func TestClientInterim(t *testing.T) {
	addr := oracle(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Hints") != "" {
			for range 3 {
				w.WriteHeader(103)
			}
		}
		_, _ = io.Copy(w, r.Body) // sends 100 by itself, unless it sent 103
	}), 250)
	k := dialClient(t, addr, h2conn.ClientConfig{})
	for _, hints := range []bool{false, true} {
		h := request("POST", "/", 5)
		h.Expects = !hints
		if hints {
			h.Header.Add("hints", "1")
		}
		s, err := k.Open(t.Context(), h, false)
		if err != nil {
			t.Fatal(err)
		}
		var seen []int
		send := func() {
			_, _ = s.Write([]byte("hello"))
			_ = s.Finish(nil)
		}
		if hints {
			send()
		}
		got, err := s.Response(t.Context(), func(h *httpmsg.Head) {
			if seen = append(seen, h.Status); h.Status == 100 {
				send()
			}
		})
		want := map[bool]string{false: "[100]", true: "[103 103 103]"}[hints]
		if err != nil || got.Status != 200 || fmt.Sprint(seen) != want {
			t.Error(got, seen, err)
		}
		s.Close()
	}
}

// TestBothEnds: a thousand requests at a time over one connection, with bodies of many sizes, through small windows.
func TestBothEnds(t *testing.T) {
	small := h2conn.Options{StreamWindow: 4096, ConnWindow: 65535}
	for name, options := range map[string]h2conn.Options{"default": {}, "small windows": small} {
		t.Run(name, func(t *testing.T) {
			addr := listen(t, echo, h2conn.ServerConfig{MaxConcurrentStreams: 1000, Options: options})
			k := dialClient(t, addr, h2conn.ClientConfig{Options: options})
			eventually(t, "SETTINGS", func() bool { return k.Free() == 1000 })
			var wg sync.WaitGroup
			for i := range 1000 {
				wg.Go(func() {
					sent := pattern(i % 37 * 1000)
					h := request("POST", "/", -1)
					h.Header.Add("x-i", fmt.Sprint(i))
					got, body, trailer, err := exchange(t.Context(), k, h, sent)
					if err != nil || !bytes.Equal(body, sent) || got.Header.Value("x-got-x-i") != fmt.Sprint(i) || trailer.Value("x-up") != "6" {
						t.Errorf("%d: %d of %d bytes, %v", i, len(body), len(sent), err)
					}
				})
			}
			wg.Wait()
			if k.Active() != 0 {
				t.Errorf("%d streams left", k.Active())
			}
		})
	}
}

// TestClientStall: a response that nobody reads holds up neither the connection nor its end.
func TestClientStall(t *testing.T) {
	addr := oracle(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			_, _ = io.CopyN(w, zeros{}, 64<<20)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}), 250)
	k := dialClient(t, addr, h2conn.ClientConfig{})
	var stalled []httpmsg.ClientStream
	for range 8 {
		s, err := k.Open(t.Context(), request("GET", "/big", -1), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, s)
	}
	for range 50 {
		if _, body, _, err := exchange(t.Context(), k, request("POST", "/", -1), pattern(100000)); err != nil || len(body) != 100000 {
			t.Fatal(len(body), err)
		}
	}
	for i, s := range stalled {
		if i == 0 {
			if n, err := io.Copy(io.Discard, s); n != 64<<20 || err != nil {
				t.Error(n, err)
			}
		}
		s.Close()
	}
	for range 50 { // what was buffered for the closed streams was given back
		if _, body, _, err := exchange(t.Context(), k, request("POST", "/", -1), pattern(1000000)); err != nil || len(body) != 1000000 {
			t.Fatal(len(body), err)
		}
	}
}

func TestClientErrors(t *testing.T) {
	block := make(chan struct{})
	addr := oracle(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/half":
			_, _ = w.Write([]byte("hello"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/wait":
			select {
			case <-block:
			case <-r.Context().Done():
			}
		case "/early":
			w.WriteHeader(413)
		}
	}), 2)
	defer close(block)
	k := dialClient(t, addr, h2conn.ClientConfig{})
	if _, _, _, err := exchange(t.Context(), k, request("GET", "/panic", -1), nil); !errors.Is(err, httpmsg.ErrReset) || errors.Is(err, httpmsg.ErrNotSent) {
		t.Error(err)
	}
	if h, body, _, err := exchange(t.Context(), k, request("GET", "/half", -1), nil); h == nil || string(body) != "hello" || !errors.Is(err, httpmsg.ErrReset) {
		t.Error(h, body, err)
	}
	// A deadline passes.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, _, err := exchange(ctx, k, request("GET", "/wait", -1), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// The peer takes two at a time.
	for range 2 {
		s, err := k.Open(t.Context(), request("GET", "/wait", -1), true)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if _, err := k.Open(t.Context(), request("GET", "/", -1), true); !errors.Is(err, httpmsg.ErrNotSent) || k.Free() != 0 || k.Active() != 2 {
		t.Error(err, k.Free(), k.Active())
	}
}

func TestClientEarlyResponse(t *testing.T) {
	addr := oracle(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(413)
		_, _ = w.Write([]byte("no"))
	}), 250)
	k := dialClient(t, addr, h2conn.ClientConfig{})
	s, err := k.Open(t.Context(), request("POST", "/", -1), false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	failed := make(chan error)
	go func() {
		var err error
		for err == nil {
			_, err = s.Write(make([]byte, 64<<10))
		}
		failed <- err
	}()
	h, err := s.Response(t.Context(), nil)
	if err != nil || h.Status != 413 {
		t.Fatal(h, err)
	}
	if err := <-failed; !errors.Is(err, httpmsg.ErrReset) {
		t.Error(err)
	}
	if got, err := io.ReadAll(s); string(got) != "no" || err != nil {
		t.Error(string(got), err)
	}
}

func TestClientConnectionLost(t *testing.T) {
	entered := make(chan net.Conn, 1)
	addr := accept(t, func(_ context.Context, c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<16))
		entered <- c
	})
	k := dialClient(t, addr, h2conn.ClientConfig{})
	s, err := k.Open(t.Context(), request("GET", "/", -1), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	(<-entered).Close()
	if _, err := s.Response(t.Context(), nil); !errors.Is(err, httpmsg.ErrReset) {
		t.Error(err)
	}
	<-k.Done()
}

func TestKeepalive(t *testing.T) {
	silent := make(chan net.Conn, 1)
	addr := accept(t, func(_ context.Context, c net.Conn) { silent <- c })
	k := dialClient(t, addr, h2conn.ClientConfig{Options: h2conn.Options{KeepaliveInterval: 20 * time.Millisecond, KeepaliveTimeout: 50 * time.Millisecond}})
	select {
	case <-k.Done():
	case <-time.After(30 * time.Second):
		t.Error("a silent peer went unnoticed")
	}
	(<-silent).Close()

	alive := dialClient(t, listen(t, echo, h2conn.ServerConfig{}), h2conn.ClientConfig{Options: h2conn.Options{KeepaliveInterval: 5 * time.Millisecond, KeepaliveTimeout: 30 * time.Second}})
	select {
	case <-alive.Done():
		t.Error("an idle peer was given up")
	case <-time.After(200 * time.Millisecond):
	}
	if _, body, _, err := exchange(t.Context(), alive, request("POST", "/", -1), []byte("hello")); string(body) != "hello" {
		t.Error(err)
	}
}

func TestTunnels(t *testing.T) {
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		r := s.Request()
		if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) || !s.Ended() {
			t.Error("a tunnel has a body")
		}
		h := &httpmsg.Head{Status: 200, ContentLength: -1}
		switch {
		case r.Path == "/no":
			h.Status = 403
			_ = s.Respond(h, true)
			return
		case r.Upgrade == "websocket":
			h.Status = 101
		case r.Method != "CONNECT" || r.Authority != "example.com:80":
			t.Errorf("%+v", r)
		}
		h.Header.Add("a", "b")
		if err := s.Respond(h, false); err != nil {
			t.Error(err)
		}
		raw, err := s.Tunnel()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(raw, raw)
		_ = raw.CloseWrite()
		raw.Close()
	}, h2conn.ServerConfig{})
	k := dialClient(t, addr, h2conn.ClientConfig{})
	connect := &httpmsg.Head{Method: "CONNECT", Authority: "example.com:80", ContentLength: -1}
	ws := request("GET", "/ws", -1)
	ws.Upgrade = "websocket"
	no := request("GET", "/no", -1)
	no.Upgrade = "websocket"
	for want, h := range map[int]*httpmsg.Head{200: connect, 101: ws, 403: no} {
		s, err := k.Open(t.Context(), h, true)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Response(t.Context(), nil)
		if err != nil || got.Status != want {
			t.Fatal(got, err)
		}
		raw, err := s.Tunnel()
		if want == 403 {
			if err == nil {
				t.Error("refused, but a tunnel")
			}
			s.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sent := pattern(300000)
		go func() {
			_, _ = raw.Write(sent)
			_ = raw.CloseWrite()
		}()
		if got, err := io.ReadAll(raw); !bytes.Equal(got, sent) || err != nil {
			t.Error(len(got), err)
		}
		raw.SetReadDeadline(time.Now())
		s.Close()
	}
	// Deadlines.
	s, err := k.Open(t.Context(), connect, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Response(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	raw, _ := s.Tunnel()
	raw.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := raw.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Error(err)
	}
}
