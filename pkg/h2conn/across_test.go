package h2conn_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// forward is a proxy's handler: each request goes over a connection of its own.
func forward(t *testing.T, dial func() httpmsg.ClientConn) httpmsg.Handler {
	return func(ctx context.Context, s httpmsg.ServerStream) {
		k := dial()
		defer k.Close()
		up, err := k.Open(ctx, s.Request(), s.Ended())
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		sent := make(chan error, 1)
		if s.Ended() {
			sent <- nil
		} else {
			go func() { sent <- pump(up, s) }()
		}
		h, err := up.Response(ctx, func(h *httpmsg.Head) { _ = s.Inform(h) })
		if err != nil {
			t.Error(err)
			return
		}
		if up.Ended() && h.Status != 101 && s.Request().Method != "CONNECT" {
			_ = s.Respond(h, true)
			return
		}
		if err := s.Respond(h, false); err != nil {
			t.Error(err)
			return
		}
		if raw, err := up.Tunnel(); err == nil {
			join(t, s, raw)
			return
		}
		if err := errors.Join(pump(s, up), <-sent); err != nil {
			t.Error(err)
		}
	}
}

func join(t *testing.T, s httpmsg.ServerStream, up httpmsg.Stream) {
	down, err := s.Tunnel()
	if err != nil {
		t.Error(err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, down)
		_ = up.CloseWrite()
	}()
	_, _ = io.Copy(down, up)
	_ = down.CloseWrite()
	<-done
	up.Close()
}

// chain is HTTP/1 → HTTP/2 → HTTP/1 through three of our proxies, in front of h.
func chain(t *testing.T, h httpmsg.Handler) string {
	last := accept(t, func(ctx context.Context, c net.Conn) { _ = h1.Serve(ctx, c, h, h1.ServerConfig{}) })
	second := listen(t, forward(t, func() httpmsg.ClientConn { return h1.NewClient(dialRaw(t, last), h1.ClientConfig{}) }), h2conn.ServerConfig{})
	return accept(t, func(ctx context.Context, c net.Conn) {
		handler := forward(t, func() httpmsg.ClientConn {
			k, err := h2conn.NewClient(dialRaw(t, second), h2conn.ClientConfig{})
			if err != nil {
				t.Error(err)
			}
			return k
		})
		protocol, c, err := h2conn.Sniff(c, 0)
		if err == nil && protocol == h2conn.HTTP2 {
			_ = h2conn.Serve(ctx, c, handler, h2conn.ServerConfig{})
		} else {
			_ = h1.Serve(ctx, c, handler, h1.ServerConfig{})
		}
	})
}

func TestAcrossVersions(t *testing.T) {
	addr := chain(t, echo)
	h2 := transport(t)
	h1 := &http.Transport{DisableCompression: true}
	defer h1.CloseIdleConnections()
	for name, tr := range map[string]*http.Transport{"from HTTP/1": h1, "from HTTP/2": h2} {
		for _, n := range []int{0, 1, 5000, 200000} {
			for _, known := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d %v", name, n, known), func(t *testing.T) {
					sent := pattern(n)
					var body io.Reader = bytes.NewReader(sent)
					r, _ := http.NewRequest("POST", "http://"+addr+"/a?b", body)
					if !known {
						r, _ = http.NewRequest("POST", "http://"+addr+"/a?b", io.MultiReader(body))
						r.Trailer = http.Header{"X-Sum": {"7"}}
					}
					r.Header["Foo"] = []string{"bar", "baz"}
					resp, err := tr.RoundTrip(r)
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					got, err := io.ReadAll(resp.Body)
					if err != nil || !bytes.Equal(got, sent) {
						t.Fatalf("%d bytes, %v", len(got), err)
					}
					if resp.Header.Get("X-At") != "POST http://"+addr+"/a?b" || len(resp.Header["X-Got-Foo"]) != 2 {
						t.Error(resp.Header)
					}
					if known && resp.ContentLength != int64(n) || !known && n > 0 && resp.Trailer.Get("X-Sum") != "7" {
						t.Error(resp.ContentLength, resp.Trailer)
					}
				})
			}
		}
	}
}

func TestWebsocketAcrossVersions(t *testing.T) {
	addr := chain(t, func(_ context.Context, s httpmsg.ServerStream) {
		h := &httpmsg.Head{Status: 101, ContentLength: -1}
		if r := s.Request(); r.Method == "CONNECT" {
			h.Status = 200
		} else {
			h.Header.Add("sec-websocket-accept", r.Header.Value("sec-websocket-key")+"!")
		}
		_ = s.Respond(h, false)
		raw, err := s.Tunnel()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(raw, raw)
		_ = raw.CloseWrite()
	})
	for head, want := range map[string]string{
		"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n": "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: k!\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
		"CONNECT y:1 HTTP/1.1\r\nhost: y:1\r\n\r\n":                                                                "HTTP/1.1 200 OK\r\n\r\n",
	} {
		c := dialRaw(t, addr)
		sent := strings.Repeat("hello, world ", 20000)
		go func() {
			_, _ = io.WriteString(c, head+sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(bufio.NewReader(c))
		if string(got) != want+sent || err != nil {
			t.Errorf("%d bytes: %.200q %v", len(got), got, err)
		}
		c.Close()
	}
}
