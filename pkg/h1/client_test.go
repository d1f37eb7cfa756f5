package h1_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func request(method, path string, length int64) *httpmsg.Head {
	return &httpmsg.Head{Method: method, Path: path, Authority: "example.com", ContentLength: length}
}

// exchange sends a request and returns the response and its body.
func exchange(t *testing.T, k httpmsg.ClientConn, h *httpmsg.Head, body []byte) (*httpmsg.Head, []byte, *httpmsg.Header) {
	t.Helper()
	s, err := k.Open(t.Context(), h, body == nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := make(chan error, 1)
	go func() {
		if body == nil {
			sent <- nil
			return
		}
		_, err := s.Write(body)
		sent <- errors.Join(err, s.Finish(nil))
	}()
	got, err := s.Response(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got = &httpmsg.Head{Status: got.Status, Header: got.Header, ContentLength: got.ContentLength}
	all, err := io.ReadAll(s)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	return got, all, s.Trailer()
}

func TestClientWithNetHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" || r.Header.Get("A") != "b" {
			t.Errorf("request %+v", r)
		}
		all, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(all)
		w.Header().Set("X-Sum", "5")
	}))
	defer server.Close()
	k := dialClient(t, server.Listener.Addr().String())
	for _, path := range []string{"/", "/chunked"} {
		for _, n := range []int{0, 1, 1000, 5000, 70000, 2 << 20} {
			for _, length := range []int64{-1, int64(n)} {
				h := request("POST", path, length)
				h.Header.Add("a", "b")
				sent := pattern(n)
				got, body, trailer := exchange(t, k, h, sent)
				if got.Status != 200 || !bytes.Equal(body, sent) {
					t.Fatalf("%s %d %d: %d, %d bytes", path, n, length, got.Status, len(body))
				}
				if path == "/chunked" && n > 0 && (trailer == nil || trailer.Value("x-sum") != "5") {
					t.Errorf("trailer %v", trailer)
				}
				if k.Free() != 1 || k.Active() != 0 {
					t.Fatal("connection is not free again")
				}
			}
		}
	}
	h := request("GET", "/", -1)
	h.Header.Add("a", "b")
	if got, _, _ := exchange(t, k, h, nil); got.Status != 200 {
		t.Error(got)
	}
}

// script answers a connection with what it is told to, whatever comes.
func script(t *testing.T, reply string, after func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte(reply))
		if after != nil {
			after(c)
		} else {
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func TestClientResponses(t *testing.T) {
	for _, tt := range []struct {
		name, method, reply string
		status              int
		body                string
		free                int
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 1},
		{"no phrase", "GET", "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n", 299, "", 1},
		{"not even a blank", "GET", "HTTP/1.1 299\r\ncontent-length: 0\r\n\r\n", 299, "", 1},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nabc", 200, "abc", 0},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 0},
		{"HTTP/1.0 kept", "GET", "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 1},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc", 1},
		{"close", "GET", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 0},
		{"204", "GET", "HTTP/1.1 204 No\r\n\r\n", 204, "", 1},
		{"304 with a length", "GET", "HTTP/1.1 304 No\r\ncontent-length: 7\r\n\r\n", 304, "", 1},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", 200, "", 1},
		{"head chunked", "HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, "", 1},
		{"interim", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 1},
		{"excess", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nevil", 200, "abc", 0},
		{"many fields", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n" + strings.Repeat("a: "+strings.Repeat("b", 500)+"\r\n", 90) + "\r\nabc", 200, "abc", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			block := make(chan struct{})
			k := dialClient(t, script(t, tt.reply, func(net.Conn) {
				if tt.name != "until close" {
					<-block
				}
			}))
			got, body, _ := exchange(t, k, request(tt.method, "/", -1), nil)
			if got.Status != tt.status || string(body) != tt.body || k.Free() != tt.free {
				t.Errorf("status %d, body %q, free %d", got.Status, body, k.Free())
			}
			close(block)
			waitDone(t, k) // the server hung up
		})
	}
}

func waitDone(t *testing.T, k httpmsg.ClientConn) {
	t.Helper()
	select {
	case <-k.Done():
	case <-time.After(30 * time.Second):
		t.Error("the end of the connection went unnoticed")
	}
	if k.Free() != 0 {
		t.Error("an ended connection takes requests")
	}
	if _, err := k.Open(t.Context(), request("GET", "/", -1), true); !errors.Is(err, httpmsg.ErrNotSent) {
		t.Errorf("Open: %v", err)
	}
}

func TestClientRefuses(t *testing.T) {
	for name, reply := range map[string]string{
		"not HTTP":                  "hello\r\n\r\n",
		"garbage":                   "\x00\x01",
		"short status":              "HTTP/1.1 20 OK\r\n\r\n",
		"long status":               "HTTP/1.1 2000 OK\r\n\r\n",
		"letters":                   "HTTP/1.1 2xx OK\r\n\r\n",
		"status 099":                "HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/2":                    "HTTP/2.0 200 OK\r\n\r\n",
		"bare LF":                   "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
		"length and chunked":        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
		"two lengths":               "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
		"gzip":                      "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
		"folding":                   "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
		"blank before colon":        "HTTP/1.1 200 OK\r\ncontent-length : 3\r\n\r\nabc",
		"chunked 204":               "HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
		"unwanted upgrade":          "HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
		"endless interim":           strings.Repeat("HTTP/1.1 103 Hints\r\n\r\n", 100),
		"large":                     "HTTP/1.1 200 OK\r\na: " + strings.Repeat("b", 80<<10) + "\r\n\r\n",
		"many fields":               "HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 200) + "\r\n",
		"cut in the head":           "HTTP/1.1 200 OK\r\na: b",
		"nothing":                   "",
		"empty line before":         "\r\nHTTP/1.1 200 OK\r\n\r\n",
		"chunked in 1.0":            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
		"control character in line": "HTTP/1.1 200 O\x01K\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			k := dialClient(t, script(t, reply, nil))
			s, err := k.Open(t.Context(), request("GET", "/", -1), true)
			if err != nil {
				t.Fatal(err)
			}
			h, err := s.Response(t.Context(), nil)
			var e *h1.Error
			if err == nil || !errors.As(err, &e) && !errors.Is(err, httpmsg.ErrReset) {
				t.Errorf("head %+v, error %v", h, err)
			}
			s.Close()
			waitDone(t, k)
		})
	}
}

func TestClientCutBodies(t *testing.T) {
	for _, reply := range []string{
		"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabc",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n",
	} {
		k := dialClient(t, script(t, reply, nil))
		s, err := k.Open(t.Context(), request("GET", "/", -1), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); string(got) != "abc" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: got %q, %v", reply, got, err)
		}
		s.Close()
	}
}

// TestClientEarlyResponse: the response can be read while the request can't be written.
func TestClientEarlyResponse(t *testing.T) {
	k := dialClient(t, script(t, "HTTP/1.1 413 No\r\ncontent-length: 3\r\n\r\nabc", func(c net.Conn) {
		<-t.Context().Done()
	}))
	s, err := k.Open(t.Context(), request("POST", "/", 1<<30), false)
	if err != nil {
		t.Fatal(err)
	}
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
	if got, err := io.ReadAll(s); string(got) != "abc" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	s.Close()
	if err := <-failed; err == nil {
		t.Error("writing goes on")
	}
	waitDone(t, k)
}

func TestClientCancel(t *testing.T) {
	k := dialClient(t, script(t, "HTTP/1.1 100 Continue\r\n\r\n", func(net.Conn) { <-t.Context().Done() }))
	s, err := k.Open(t.Context(), request("GET", "/", -1), true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Response(ctx, func(h *httpmsg.Head) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.Close()
	waitDone(t, k)
}

func TestClientTunnel(t *testing.T) {
	k := dialClient(t, script(t, "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\nhello", func(c net.Conn) {
		_, _ = io.Copy(c, c)
	}))
	h := request("GET", "/ws", -1)
	h.Upgrade = "websocket"
	s, err := k.Open(t.Context(), h, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Response(t.Context(), nil)
	if err != nil || got.Status != 101 || got.Upgrade != "websocket" || got.Header.Value("sec-websocket-accept") != "a" {
		t.Fatal(got, err)
	}
	raw, err := s.Tunnel()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = raw.Write([]byte(" world"))
	_ = raw.CloseWrite()
	if got, err := io.ReadAll(raw); string(got) != "hello world" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestClientWrites(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    *httpmsg.Head
		body string
		want string
	}{
		{"get", request("GET", "/a?b", -1), "", "GET /a?b HTTP/1.1\r\nhost: example.com\r\n\r\n"},
		{"empty post", request("POST", "/", -1), "", "POST / HTTP/1.1\r\nhost: example.com\r\ncontent-length: 0\r\n\r\n"},
		{"post", request("POST", "/", 3), "abc", "POST / HTTP/1.1\r\nhost: example.com\r\ncontent-length: 3\r\n\r\nabc"},
		{"chunked", request("POST", "/", -1), "abc", "POST / HTTP/1.1\r\nhost: example.com\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"connect", &httpmsg.Head{Method: "CONNECT", Authority: "a:80", ContentLength: -1}, "", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"},
		{"upgrade", &httpmsg.Head{Method: "GET", Path: "/", Authority: "a", Upgrade: "websocket", ContentLength: -1}, "", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
		{"evil path", request("GET", "/ HTTP/1.1\r\nx: y", -1), "", ""},
		{"evil method", request("GET / HTTP/1.1\r\n", "/", -1), "", ""},
		{"evil authority", &httpmsg.Head{Method: "GET", Path: "/", Authority: "a\r\nb: c", ContentLength: -1}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			got := make(chan string)
			go func() {
				all, _ := io.ReadAll(theirs)
				got <- string(all)
			}()
			k := h1.NewClient(ours, h1.ClientConfig{})
			s, err := k.Open(t.Context(), tt.h, tt.body == "")
			if tt.want != "" && err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && err == nil {
				t.Error("sent")
			}
			if tt.body != "" {
				_, _ = s.Write([]byte(tt.body))
				if err := s.Finish(nil); err != nil {
					t.Error(err)
				}
			}
			k.Close()
			if g := <-got; g != tt.want {
				t.Errorf("got %q", g)
			}
		})
	}
}

// TestBothEnds: our client against our server, many times over few connections.
func TestBothEnds(t *testing.T) {
	addr := listen(t, echo, h1.ServerConfig{})
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			k := dialClient(t, addr)
			for n := range 200 {
				sent := pattern(n * n)
				length := int64(len(sent))
				if n%2 == 0 {
					length = -1
				}
				_, body, _ := exchange(t, k, request("POST", "/", length), sent)
				if !bytes.Equal(body, sent) {
					t.Fatal("bodies differ")
				}
			}
		})
	}
}

// ended tells whether the peer's end of the connection has arrived, and takes nothing of it.
func ended(t *testing.T, c *net.TCPConn) (is bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			is = n == 0 && err == nil
		})
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	return is || err != nil // given up already
}

// TestClientStale: a server that hangs up after each response, without saying so, loses no request.
func TestClientStale(t *testing.T) {
	closed := make(chan struct{})
	c := dial(t, script(t, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", func(c net.Conn) {
		c.Close()
		close(closed)
	}))
	c.SetDeadline(time.Time{})
	k := h1.NewClient(c, h1.ClientConfig{})
	defer k.Close()
	if got, _, _ := exchange(t, k, request("GET", "/", -1), nil); got.Status != 200 {
		t.Fatal(got)
	}
	<-closed
	wait.Until(t, time.Minute, "the end of the connection is here", func() bool { return ended(t, c) }, nil)
	if _, err := k.Open(t.Context(), request("GET", "/", -1), true); !errors.Is(err, httpmsg.ErrNotSent) {
		t.Error(err)
	}
	<-k.Done()
}
