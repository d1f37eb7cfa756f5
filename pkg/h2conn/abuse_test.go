package h2conn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// peer speaks frames to us.
type peer struct {
	*http2.Framer
	c   net.Conn
	enc *hpack.Encoder
	buf bytes.Buffer
}

func newPeer(c net.Conn) *peer {
	p := &peer{c: c, Framer: http2.NewFramer(c, c)}
	p.AllowIllegalWrites = true
	p.enc = newEncoder(&p.buf)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return p
}

func newEncoder(b *bytes.Buffer) *hpack.Encoder { return hpack.NewEncoder(b) }

// dialPeer is a peer that has sent its preface.
func dialPeer(t *testing.T, addr string) *peer {
	c := dialRaw(t, addr)
	t.Cleanup(func() { c.Close() })
	p := newPeer(c)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = p.WriteSettings()
	return p
}

func (p *peer) block(kv ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(kv); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *peer) headers(id uint32, end bool, kv ...string) error {
	return p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(kv...), EndHeaders: true, EndStream: end})
}

func get() []string {
	return []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "x"}
}

// until reads frames up to one that ok accepts.
func (p *peer) until(t *testing.T, ok func(http2.Frame) bool) {
	t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if ok(f) {
			return
		}
	}
}

// TestFloods: who makes us work for nothing is sent away. Writing may fail before the GOAWAY is read.
func TestFloods(t *testing.T) {
	n := 0
	for name, flood := range map[string]func(p *peer, i uint32) error{
		"rapid reset": func(p *peer, i uint32) error {
			return errors.Join(p.headers(2*i+1, false, get()...), p.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		},
		"made to reset": func(p *peer, i uint32) error { // MadeYouReset: errors that make the server reset
			return errors.Join(p.headers(2*i+1, false, get()...), p.WriteWindowUpdate(2*i+1, 0))
		},
		"ping":     func(p *peer, _ uint32) error { return p.WritePing(false, [8]byte{}) },
		"settings": func(p *peer, _ uint32) error { return p.WriteSettings() },
		"priority": func(p *peer, _ uint32) error { return p.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"empty data": func(p *peer, i uint32) error {
			if i == 0 {
				return p.headers(1, false, get()...)
			}
			return p.WriteData(1, false, nil)
		},
		"continuation": func(p *peer, i uint32) error {
			if i == 0 {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get()...)})
			}
			return p.WriteContinuation(1, false, []byte{})
		},
		"large headers": func(p *peer, i uint32) error {
			if i == 0 {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get()...)})
			}
			return p.WriteContinuation(1, false, p.block("a", strings.Repeat("b", 10000)))
		},
		"goaway":        func(p *peer, _ uint32) error { return p.WriteGoAway(0, 0, nil) },
		"trailer twice": func(p *peer, i uint32) error { return p.headers(2*i+1, false, ":method", "GET") },
	} {
		n++
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			addr := accept(t, func(ctx context.Context, c net.Conn) {
				done <- h2conn.Serve(ctx, c, func(_ context.Context, s httpmsg.ServerStream) { <-s.Gone() }, h2conn.ServerConfig{})
			})
			p := dialPeer(t, addr)
			go func() {
				for i := uint32(0); i < 200000 && flood(p, i) == nil; i++ {
				}
			}()
			if err := <-done; err == nil || !strings.Contains(err.Error(), "ENHANCE_YOUR_CALM") {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestUsefulResets: a client that also lets requests end may cancel as many.
func TestUsefulResets(t *testing.T) {
	addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
		if s.Request().Path == "/cancelled" {
			<-s.Gone()
			return
		}
		echo(ctx, s)
	}, h2conn.ServerConfig{})
	k := dialClient(t, addr, h2conn.ClientConfig{})
	for range 2500 {
		s, err := k.Open(t.Context(), request("GET", "/cancelled", -1), true)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, _, _, err := exchange(t.Context(), k, request("GET", "/", -1), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	var handled atomic.Int32
	addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
		handled.Add(1)
		echo(ctx, s)
	}, h2conn.ServerConfig{})
	with := func(kv ...string) []string { return append(get(), kv...) }
	for name, kv := range map[string][]string{
		"upper case":                with("Foo", "bar"),
		"blank in a name":           with("fo o", "bar"),
		"colon in a name":           with("fo:o", "bar"),
		"line break in a value":     with("foo", "a\r\nb: c"),
		"NUL in a value":            with("foo", "a\x00"),
		"control character":         with("foo", "a\x01b"),
		"DEL in a value":            with("foo", "a\x7f"),
		"blank around a value":      with("foo", " a"),
		"connection":                with("connection", "close"),
		"transfer-encoding":         with("transfer-encoding", "chunked"),
		"te":                        with("te", "gzip"),
		"upgrade":                   with("upgrade", "websocket"),
		"unknown pseudo":            with(":foo", "a"),
		"status":                    with(":status", "200"),
		"late pseudo":               with("foo", "bar", ":protocol", "a"),
		"repeated pseudo":           with(":path", "/"),
		"no path":                   {":method", "GET", ":scheme", "http", ":authority", "x"},
		"empty path":                {":method", "GET", ":scheme", "http", ":path", "", ":authority", "x"},
		"relative path":             {":method", "GET", ":scheme", "http", ":path", "a", ":authority", "x"},
		"star":                      {":method", "GET", ":scheme", "http", ":path", "*", ":authority", "x"},
		"blank in the path":         {":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1", ":authority", "x"},
		"no method":                 {":scheme", "http", ":path", "/", ":authority", "x"},
		"blank in the method":       {":method", "GET /", ":scheme", "http", ":path", "/", ":authority", "x"},
		"no scheme":                 {":method", "GET", ":path", "/", ":authority", "x"},
		"no authority":              {":method", "GET", ":scheme", "http", ":path", "/"},
		"user":                      {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@x"},
		"path in the authority":     {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "x/y"},
		"contradicting host":        with("host", "y"),
		"two hosts":                 with("host", "x", "host", "x"),
		"two lengths":               with("content-length", "0", "content-length", "0"),
		"length without a body":     with("content-length", "5"),
		"bad length":                with("content-length", "+0"),
		"CONNECT with a path":       {":method", "CONNECT", ":path", "/", ":authority", "x:1"},
		"CONNECT without authority": {":method", "CONNECT"},
		"extended GET":              with(":protocol", "websocket"),
		"extended without a path":   {":method", "CONNECT", ":protocol", "websocket", ":authority", "x:1", ":scheme", "http"},
	} {
		t.Run(name, func(t *testing.T) {
			p := dialPeer(t, addr)
			if err := p.headers(1, true, kv...); err != nil {
				t.Fatal(err)
			}
			p.until(t, func(f http2.Frame) bool {
				if h, ok := f.(*http2.MetaHeadersFrame); ok {
					t.Fatal("answered", h.Fields)
				}
				r, ok := f.(*http2.RSTStreamFrame)
				return ok && r.ErrCode == http2.ErrCodeProtocol
			})
			// The connection goes on.
			_ = p.headers(3, true, get()...)
			p.until(t, func(f http2.Frame) bool { return f.Header().StreamID == 3 && f.Header().Type == http2.FrameHeaders })
		})
	}
	if n := int(handled.Load()); n != 36 {
		t.Errorf("%d requests were handled", n)
	}
}

func TestRefused(t *testing.T) {
	addr := listen(t, echo, h2conn.ServerConfig{})
	many := get()
	for range 120 {
		many = append(many, "a", "b")
	}
	for want, kv := range map[string][]string{
		"431":  append(get(), "a", strings.Repeat("b", 30000), "c", strings.Repeat("d", 35000)),
		"431 ": many,
	} {
		p := dialPeer(t, addr)
		block := p.block(kv...)
		first := block[:min(len(block), 16000)]
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(first) == len(block)})
		for rest := block[len(first):]; len(rest) > 0; {
			n := min(len(rest), 16000)
			_ = p.WriteContinuation(1, n == len(rest), rest[:n])
			rest = rest[n:]
		}
		p.until(t, func(f http2.Frame) bool {
			h, ok := f.(*http2.MetaHeadersFrame)
			if ok && h.PseudoValue("status") != strings.TrimSpace(want) {
				t.Error(h.Fields)
			}
			return ok
		})
	}
}

func TestTooManyStreams(t *testing.T) {
	block := make(chan struct{})
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		<-block
		_ = s.Respond(&httpmsg.Head{Status: 200}, true)
	}, h2conn.ServerConfig{MaxConcurrentStreams: 3})
	p := dialPeer(t, addr)
	for id := uint32(1); id <= 7; id += 2 {
		_ = p.headers(id, true, get()...)
	}
	p.until(t, func(f http2.Frame) bool {
		r, ok := f.(*http2.RSTStreamFrame)
		return ok && r.StreamID == 7 && r.ErrCode == http2.ErrCodeRefusedStream
	})
	close(block)
}

// hostile is a server that does what it is told to.
func hostile(t *testing.T, do func(p *peer)) httpmsg.ClientConn {
	addr := accept(t, func(ctx context.Context, c net.Conn) {
		defer c.Close()
		defer context.AfterFunc(ctx, func() { c.Close() })()
		p := newPeer(c)
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		_ = p.WriteSettings()
		for {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.MetaHeadersFrame); ok {
				break
			}
		}
		do(p)
		_, _ = io.Copy(io.Discard, c)
	})
	return dialClient(t, addr, h2conn.ClientConfig{})
}

func TestHostileServers(t *testing.T) {
	for name, do := range map[string]func(p *peer){
		"no status":      func(p *peer) { _ = p.headers(1, true, "a", "b") },
		"bad status":     func(p *peer) { _ = p.headers(1, true, ":status", "2xx") },
		"status 101":     func(p *peer) { _ = p.headers(1, false, ":status", "101") },
		"interim end":    func(p *peer) { _ = p.headers(1, true, ":status", "103") },
		"request pseudo": func(p *peer) { _ = p.headers(1, true, ":status", "200", ":path", "/") },
		"connection":     func(p *peer) { _ = p.headers(1, true, ":status", "200", "connection", "close") },
		"length":         func(p *peer) { _ = p.headers(1, true, ":status", "200", "content-length", "5") },
		"data first":     func(p *peer) { _ = p.WriteData(1, true, []byte("hello")) },
		"push": func(p *peer) {
			_ = p.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		},
		"idle stream":            func(p *peer) { _ = p.headers(5, true, ":status", "200") },
		"data on an idle stream": func(p *peer) { _ = p.WriteData(5, true, nil) },
		"window overflow":        func(p *peer) { _ = p.WriteWindowUpdate(0, 1<<31-1) },
		"no window":              func(p *peer) { _ = p.WriteWindowUpdate(1, 0) },
		"push setting":           func(p *peer) { _ = p.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) },
		"bad hpack": func(p *peer) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		},
		"not HTTP/2":       func(p *peer) { _, _ = io.WriteString(p.c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"gone":             func(p *peer) { p.c.Close() },
		"reset":            func(p *peer) { _ = p.WriteRSTStream(1, http2.ErrCodeInternal) },
		"refused":          func(p *peer) { _ = p.WriteRSTStream(1, http2.ErrCodeRefusedStream) },
		"went away before": func(p *peer) { _ = p.WriteGoAway(0, 0, nil) },
		"endless interim": func(p *peer) {
			for p.headers(1, false, ":status", "103") == nil {
			}
		},
		"endless ping": func(p *peer) {
			for p.WritePing(false, [8]byte{}) == nil {
			}
		},
		"large header": func(p *peer) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(":status", "200")})
			for p.WriteContinuation(1, false, p.block("a", strings.Repeat("b", 15000))) == nil {
			}
		},
		"many fields": func(p *peer) {
			kv := []string{":status", "200"}
			for range 200 {
				kv = append(kv, "a", "b")
			}
			_ = p.headers(1, true, kv...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := hostile(t, do)
			s, err := k.Open(t.Context(), request("GET", "/", -1), true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			h, err := s.Response(ctx, nil)
			if h != nil && err == nil || ctx.Err() != nil {
				t.Errorf("%+v, %v", h, err)
			}
			if want := name == "refused" || name == "went away before"; errors.Is(err, httpmsg.ErrNotSent) != want {
				t.Error(err)
			}
		})
	}
}

// TestHostileBodies: what comes after a good head.
func TestHostileBodies(t *testing.T) {
	for name, do := range map[string]func(p *peer){
		"too long":             func(p *peer) { _ = p.WriteData(1, true, []byte("hello!")) },
		"too short":            func(p *peer) { _ = p.WriteData(1, true, []byte("hell")) },
		"too short by trailer": func(p *peer) { _ = p.WriteData(1, false, []byte("hell")); _ = p.headers(1, true, "a", "b") },
		"pseudo trailer":       func(p *peer) { _ = p.headers(1, true, ":status", "200") },
		"unended trailer":      func(p *peer) { _ = p.headers(1, false, "a", "b") },
		"window exceeded": func(p *peer) {
			for range 2000 {
				_ = p.WriteData(1, false, make([]byte, 16384))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := hostile(t, func(p *peer) {
				_ = p.headers(1, false, ":status", "200", "content-length", "5")
				do(p)
			})
			s, err := k.Open(t.Context(), request("GET", "/", -1), true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Response(t.Context(), nil); err != nil {
				return
			}
			if got, err := io.ReadAll(s); err == nil {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestGoAway: streams up to the last id go on, later ones were not sent.
func TestGoAway(t *testing.T) {
	k := hostile(t, func(p *peer) {
		for n := 1; n < 3; {
			if f, err := p.ReadFrame(); err != nil {
				return
			} else if _, ok := f.(*http2.MetaHeadersFrame); ok {
				n++
			}
		}
		_ = p.WriteGoAway(3, http2.ErrCodeNo, nil)
		for _, id := range []uint32{3, 1} {
			_ = p.headers(id, false, ":status", "200")
			_ = p.WriteData(id, true, []byte(fmt.Sprint(id)))
		}
	})
	var streams []httpmsg.ClientStream
	for range 3 {
		s, err := k.Open(t.Context(), request("GET", "/", -1), true)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	<-k.Done()
	for i, s := range streams {
		_, err := s.Response(t.Context(), nil)
		if i == 2 {
			if !errors.Is(err, httpmsg.ErrNotSent) {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); string(got) != fmt.Sprint(2*i+1) || err != nil {
			t.Error(string(got), err)
		}
		s.Close()
	}
	if _, err := k.Open(t.Context(), request("GET", "/", -1), true); !errors.Is(err, httpmsg.ErrNotSent) {
		t.Error(err)
	}
}

// TestSettingsOrder: what a wider window allows comes after the acknowledgement of that window.
func TestSettingsOrder(t *testing.T) {
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
		_, _ = s.Write([]byte("hello"))
		_ = s.Finish(nil)
	}, h2conn.ServerConfig{})
	for range 300 {
		p := dialPeer(t, addr)
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		_ = p.headers(1, true, get()...)
		p.until(t, func(f http2.Frame) bool { return f.Header().Type == http2.FrameHeaders })
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		acks := 0
		p.until(t, func(f http2.Frame) bool {
			if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() {
				acks++
			}
			return f.Header().Type == http2.FrameData
		})
		if acks == 0 {
			t.Fatal("DATA before the acknowledgement")
		}
		p.c.Close()
	}
}
