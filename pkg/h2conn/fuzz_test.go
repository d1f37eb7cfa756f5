package h2conn_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// memory is a connection that yields bytes, in pieces of a given size, and swallows what is written.
type memory struct {
	in    *bytes.Reader
	piece int
}

func (m *memory) Read(p []byte) (int, error)     { return m.in.Read(p[:min(len(p), m.piece)]) }
func (*memory) Write(p []byte) (int, error)      { return len(p), nil }
func (*memory) Close() error                     { return nil }
func (*memory) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*memory) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*memory) SetDeadline(time.Time) error      { return nil }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }

// frames is what another implementation writes.
func frames(do func(p *peer)) []byte {
	var out bytes.Buffer
	p := &peer{Framer: http2.NewFramer(&out, nil)}
	p.AllowIllegalWrites = true
	p.enc = newEncoder(&p.buf)
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	do(p)
	return out.Bytes()
}

// FuzzServer: whatever a client sends, the connection ends with it, and so do all handlers; no request is malformed.
func FuzzServer(f *testing.F) {
	f.Add(frames(func(p *peer) {
		_ = p.headers(1, false, append(get(), "content-length", "5", "cookie", "a", "cookie", "b")...)
		_ = p.WriteDataPadded(1, false, []byte("he"), make([]byte, 5))
		_ = p.WriteData(1, true, []byte("llo"))
		_ = p.headers(3, true, get()...)
		_ = p.WriteRSTStream(3, 8)
		_ = p.WriteGoAway(0, 0, nil)
	}), byte(1))
	f.Add(frames(func(p *peer) {
		_ = p.headers(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "x")
		_ = p.WriteData(1, false, []byte("hello"))
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
		_ = p.WriteWindowUpdate(1, 100)
		_ = p.headers(3, false, get()...)
		_ = p.headers(3, true, "x-trailer", "a")
		_ = p.WritePing(false, [8]byte{})
	}), byte(200))
	f.Fuzz(func(t *testing.T, in []byte, piece byte) {
		all := append([]byte(http2.ClientPreface), in...)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_ = h2conn.Serve(ctx, &memory{bytes.NewReader(all), int(piece) + 1}, func(_ context.Context, s httpmsg.ServerStream) {
			r := s.Request()
			if r.Method == "" || r.Authority == "" || (r.Path == "") != (r.Method == "CONNECT" && r.Upgrade == "") {
				t.Errorf("%+v", r)
			}
			h := &httpmsg.Head{Status: 200, ContentLength: -1}
			if r.Upgrade != "" {
				h.Status = 101
			}
			_ = s.Respond(h, false)
			if raw, err := s.Tunnel(); err == nil {
				_, _ = io.Copy(raw, raw)
				return
			}
			_ = pump(s, s)
		}, h2conn.ServerConfig{})
		if ctx.Err() != nil {
			t.Error("the connection does not end")
		}
	})
}

// FuzzClient: whatever a server sends, the request ends.
func FuzzClient(f *testing.F) {
	f.Add(frames(func(p *peer) {
		_ = p.headers(1, false, ":status", "103")
		_ = p.headers(1, false, ":status", "200", "content-length", "5")
		_ = p.WriteData(1, false, []byte("hello"))
		_ = p.headers(1, true, "a", "b")
	}), byte(10))
	f.Add(frames(func(p *peer) { _ = p.WriteGoAway(0, 0, nil) }), byte(1))
	f.Fuzz(func(t *testing.T, in []byte, piece byte) {
		k, err := h2conn.NewClient(&memory{bytes.NewReader(in), int(piece) + 1}, h2conn.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		s, err := k.Open(t.Context(), request("GET", "/", -1), true)
		if err != nil {
			return
		}
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		h, err := s.Response(ctx, func(*httpmsg.Head) {})
		if ctx.Err() != nil {
			t.Fatal("the request does not end")
		}
		if err == nil {
			n, err := io.Copy(io.Discard, s)
			if err == nil && h.ContentLength >= 0 && n != h.ContentLength && h.Status != 304 {
				t.Errorf("%+v: %d bytes", h, n)
			}
		}
	})
}
