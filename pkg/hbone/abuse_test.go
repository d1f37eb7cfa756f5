package hbone

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// hostile is a peer that speaks HTTP/2 by another implementation's frame writer, and breaks its rules.
type hostile struct {
	t      *testing.T
	framer *http2.Framer
	raw    io.Writer
	hpack  *hpack.Encoder
	block  bytes.Buffer
}

func (h *hostile) headers(id uint32, end bool, fields ...string) {
	h.block.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		if err := h.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			h.t.Fatal(err)
		}
	}
	_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: end}) // the server may have gone
}

func (h *hostile) connect(id uint32) {
	h.headers(id, false, ":method", "CONNECT", ":authority", "10.0.0.1:80")
}

// frame writes any frame.
func (h *hostile) frame(kind, flags byte, id uint32, payload string) {
	head := make([]byte, 9)
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind))
	head[4] = flags
	binary.BigEndian.PutUint32(head[5:], id)
	_, _ = h.raw.Write(append(head, payload...)) // the server may have gone
}

// heldOpen is what echoOrHold keeps open as long as the connection.
const heldOpen = "held:1"

func echoOrHold(ctx context.Context, r *Request, w ResponseWriter) {
	if r.Authority != heldOpen {
		echo(ctx, r, w)
		return
	}
	if _, err := w.Accept(nil); err == nil {
		<-ctx.Done()
	}
}

// attack serves one connection to a hostile client, and returns what that gets to see: "GOAWAY code", "RST id code",
// "status n", then "end".
func attack(t *testing.T, do func(h *hostile)) []string {
	t.Helper()
	a, b := carrier(t)
	served := make(chan error, 1)
	go func() { served <- ServeConn(context.Background(), b, handlerFunc(echoOrHold), ServerConfig{}) }()
	h := &hostile{t: t, framer: http2.NewFramer(a, a), raw: a}
	h.framer.AllowIllegalWrites = true
	h.hpack = hpack.NewEncoder(&h.block)
	a.SetDeadline(time.Now().Add(2 * time.Minute))
	seen := make(chan []string, 1)
	go func() { seen <- h.watch() }()
	if _, err := io.WriteString(a, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := h.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	do(h)
	_ = a.CloseWrite() // the server may have gone
	out := <-seen
	a.Close()
	select {
	case <-served:
	case <-time.After(30 * time.Second):
		t.Error("the server still serves a connection that has ended")
	}
	return out
}

func (h *hostile) watch() []string {
	var out []string
	decoder := hpack.NewDecoder(4096, nil)
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			return append(out, "end: "+err.Error())
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			out = append(out, "GOAWAY "+f.ErrCode.String())
		case *http2.RSTStreamFrame:
			out = append(out, fmt.Sprintf("RST %d %s", f.StreamID, f.ErrCode))
		case *http2.HeadersFrame:
			if fields, err := decoder.DecodeFull(f.HeaderBlockFragment()); err == nil && len(fields) > 0 {
				out = append(out, "status "+fields[0].Value)
			}
		}
	}
}

func TestHostilePeers(t *testing.T) {
	const data, header, priority, rst, settings, push, ping, windowUpdate, continuation = 0, 1, 2, 3, 4, 5, 6, 8, 9
	many := func(n int, do func(h *hostile, i int)) func(*hostile) {
		return func(h *hostile) {
			for i := range n {
				do(h, i)
			}
		}
	}
	long := strings.Repeat("x", 1000)
	for name, tt := range map[string]struct {
		do   func(h *hostile)
		want string // one of what is seen
	}{
		"DATA on stream 0":             {func(h *hostile) { h.frame(data, 0, 0, "x") }, "GOAWAY PROTOCOL_ERROR"},
		"DATA on an idle stream":       {func(h *hostile) { h.frame(data, 0, 5, "x") }, "GOAWAY PROTOCOL_ERROR"},
		"HEADERS on stream 0":          {func(h *hostile) { h.connect(0) }, "GOAWAY PROTOCOL_ERROR"},
		"HEADERS on an even stream":    {func(h *hostile) { h.connect(2) }, "GOAWAY PROTOCOL_ERROR"},
		"stream ids going down":        {func(h *hostile) { h.connect(5); h.frame(rst, 0, 5, "\x00\x00\x00\x08"); h.connect(3) }, "GOAWAY"},
		"RST_STREAM on an idle stream": {func(h *hostile) { h.frame(rst, 0, 7, "\x00\x00\x00\x08") }, "GOAWAY PROTOCOL_ERROR"},
		"RST_STREAM too short":         {func(h *hostile) { h.connect(1); h.frame(rst, 0, 1, "\x00") }, "GOAWAY FRAME_SIZE_ERROR"},
		"PRIORITY on itself or short":  {func(h *hostile) { h.frame(priority, 0, 1, "x") }, "FRAME_SIZE_ERROR"},
		"WINDOW_UPDATE of 0":           {func(h *hostile) { h.frame(windowUpdate, 0, 0, "\x00\x00\x00\x00") }, "GOAWAY PROTOCOL_ERROR"},
		"WINDOW_UPDATE overflow":       {many(3, func(h *hostile, _ int) { h.frame(windowUpdate, 0, 0, "\x7f\xff\xff\xff") }), "GOAWAY FLOW_CONTROL_ERROR"},
		"WINDOW_UPDATE of 0 on stream": {func(h *hostile) { h.connect(1); h.frame(windowUpdate, 0, 1, "\x00\x00\x00\x00") }, "RST 1 PROTOCOL_ERROR"},
		"stream window overflow": {func(h *hostile) {
			h.connect(1)
			h.frame(windowUpdate, 0, 1, "\x7f\xff\xff\xff")
			h.frame(windowUpdate, 0, 1, "\x7f\xff\xff\xff")
		}, "RST 1 FLOW_CONTROL_ERROR"},
		"SETTINGS of odd length":        {func(h *hostile) { h.frame(settings, 0, 0, "12345") }, "GOAWAY FRAME_SIZE_ERROR"},
		"SETTINGS on a stream":          {func(h *hostile) { h.frame(settings, 0, 1, "") }, "GOAWAY PROTOCOL_ERROR"},
		"SETTINGS ACK with a payload":   {func(h *hostile) { h.frame(settings, 1, 0, "123456") }, "GOAWAY FRAME_SIZE_ERROR"},
		"SETTINGS window too large":     {func(h *hostile) { h.frame(settings, 0, 0, "\x00\x04\xff\xff\xff\xff") }, "GOAWAY FLOW_CONTROL_ERROR"},
		"SETTINGS frame size too small": {func(h *hostile) { h.frame(settings, 0, 0, "\x00\x05\x00\x00\x00\x01") }, "GOAWAY PROTOCOL_ERROR"},
		"SETTINGS push 2":               {func(h *hostile) { h.frame(settings, 0, 0, "\x00\x02\x00\x00\x00\x02") }, "GOAWAY PROTOCOL_ERROR"},
		"PING of 7 bytes":               {func(h *hostile) { h.frame(ping, 0, 0, "1234567") }, "GOAWAY FRAME_SIZE_ERROR"},
		"PING on a stream":              {func(h *hostile) { h.frame(ping, 0, 1, "12345678") }, "GOAWAY PROTOCOL_ERROR"},
		"PUSH_PROMISE":                  {func(h *hostile) { h.frame(push, 4, 1, "\x00\x00\x00\x02") }, "GOAWAY PROTOCOL_ERROR"},
		"CONTINUATION alone":            {func(h *hostile) { h.frame(continuation, 4, 1, "") }, "GOAWAY PROTOCOL_ERROR"},
		"DATA inside a header block":    {func(h *hostile) { h.frame(header, 0, 1, ""); h.frame(data, 0, 1, "x") }, "GOAWAY PROTOCOL_ERROR"},
		"padding longer than the frame": {func(h *hostile) { h.connect(1); h.frame(data, 8, 1, "\x09x") }, "GOAWAY PROTOCOL_ERROR"},
		"garbage for HPACK":             {func(h *hostile) { h.frame(header, 4, 1, "\xff\xff\xff\xff\xff\xff\xff") }, "GOAWAY COMPRESSION_ERROR"},
		"frame above the maximum":       {func(h *hostile) { h.connect(1); h.frame(data, 0, 1, strings.Repeat("x", 1<<20+1)) }, "GOAWAY FRAME_SIZE_ERROR"},
		"PING flood":                    {many(200_000, func(h *hostile, _ int) { h.frame(ping, 0, 0, "12345678") }), "GOAWAY ENHANCE_YOUR_CALM"},
		"SETTINGS flood":                {many(200_000, func(h *hostile, _ int) { h.frame(settings, 0, 0, "") }), "GOAWAY ENHANCE_YOUR_CALM"},
		"empty DATA flood": {func(h *hostile) {
			h.connect(1)
			for range 200_000 {
				h.frame(data, 0, 1, "")
			}
		}, "GOAWAY ENHANCE_YOUR_CALM"},
		"empty CONTINUATION flood": {func(h *hostile) {
			h.frame(header, 0, 1, "")
			for range 200_000 {
				h.frame(continuation, 0, 1, "")
			}
		}, "GOAWAY"},
		"rapid reset": {many(20_000, func(h *hostile, i int) {
			id := uint32(2*i + 1)
			h.connect(id)
			h.frame(rst, 0, id, "\x00\x00\x00\x08")
		}), "GOAWAY ENHANCE_YOUR_CALM"},
		"too many streams": {many(250, func(h *hostile, i int) { h.connect(uint32(2*i + 1)) }), "REFUSED_STREAM"},
		"header list too long": {func(h *hostile) {
			var fields []string
			for i := range 100 {
				fields = append(fields, fmt.Sprintf("x-%d", i), long)
			}
			h.block.Reset()
			for i := 0; i+1 < len(fields); i += 2 {
				_ = h.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			block := h.block.Bytes()
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16000]})
			for block = block[16000:]; len(block) > 0; {
				n := min(len(block), 16000)
				_ = h.framer.WriteContinuation(1, n == len(block), block[:n])
				block = block[n:]
			}
		}, "status 431"},
		"no CONNECT": {func(h *hostile) {
			h.headers(1, true, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a")
		}, "status 400"},
		"CONNECT with a path": {func(h *hostile) { h.headers(1, false, ":method", "CONNECT", ":authority", "a:1", ":path", "/") }, "1"},
		"no authority":        {func(h *hostile) { h.headers(1, false, ":method", "CONNECT") }, "1"},
		"upper-case name":     {func(h *hostile) { h.headers(1, false, ":method", "CONNECT", ":authority", "a:1", "Baggage", "x") }, "1"},
		"connection header": {func(h *hostile) {
			h.headers(1, false, ":method", "CONNECT", ":authority", "a:1", "connection", "close")
		}, "1"},
		"pseudo-header twice": {func(h *hostile) { h.headers(1, false, ":method", "CONNECT", ":authority", "a:1", ":authority", "b:1") }, "1"},
		"DATA after END_STREAM": {func(h *hostile) {
			h.headers(1, false, ":method", "CONNECT", ":authority", heldOpen)
			h.frame(data, 1, 1, "x")
			h.frame(data, 0, 1, "y")
		}, "STREAM_CLOSED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := attack(t, tt.do)
			for _, line := range seen {
				if strings.Contains(line, tt.want) {
					return
				}
			}
			if len(seen) > 8 {
				seen = append(seen[:4:4], seen[len(seen)-4:]...)
			}
			t.Errorf("seen %q, want %q", seen, tt.want)
		})
	}
}

func TestWrongPrefaceEndsTheConnection(t *testing.T) {
	for _, preface := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "\x16\x03\x01\x00\x00"} {
		a, b := carrier(t)
		served := make(chan error, 1)
		go func() { served <- ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{}) }()
		if _, err := io.WriteString(a, preface); err != nil {
			t.Fatal(err)
		}
		_ = a.CloseWrite()
		select {
		case err := <-served:
			if err == nil {
				t.Errorf("%q was taken for an orderly end", preface)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%q: still served", preface)
		}
		a.Close()
	}
}
