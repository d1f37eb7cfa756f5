package h1

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

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

// FuzzRequest: what we take for requests, net/http takes for the same requests with the same bodies, however the bytes come in.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: x:80\r\nContent-Length: 3\r\nFoo: bar \r\n\r\nabcGET / HTTP/1.1\r\nhost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc",
		"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: a, close\r\na: b\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
		"GET http://a/b HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
	} {
		f.Add([]byte(s), byte(0))
		f.Add([]byte(s), byte(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece byte) {
		oracle := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(in, "\r\n")))
		ours := input{nc: &memory{bytes.NewReader(in), int(piece) + 1}, blank: 4}
		p := parser{maxFields: 100}
		for range 4 {
			var h httpmsg.Head
			ours.restart()
			block, err := ours.head(4096)
			if err != nil || p.request(block, &h, "http") != nil {
				return
			}
			r, err := http.ReadRequest(oracle)
			if err != nil {
				if strings.Contains(err.Error(), "parse \"") || strings.Contains(err.Error(), "invalid URI") {
					return // it takes URIs apart, which is not the codec's business
				}
				t.Fatalf("net/http refuses %q: %v", block, err)
			}
			if r.Method != h.Method || r.ContentLength != max(p.length, 0) && !p.chunked || (r.ContentLength == -1) != p.chunked {
				t.Fatalf("%+v is not %+v", h, r)
			}
			b := body{in: &ours, maxFields: 100, maxBytes: 4096}
			kind := bodyLength
			if p.chunked {
				kind = bodyChunked
			}
			b.reset(kind, max(p.length, 0))
			got, err := io.ReadAll(&b)
			if err != nil {
				return
			}
			want, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("body %q is not %q (%v)", got, want, err)
			}
			for oracle.Buffered() > 0 { // empty lines between requests
				if c, _ := oracle.Peek(1); c[0] != '\r' && c[0] != '\n' {
					break
				}
				_, _ = oracle.Discard(1)
			}
		}
	})
}

// FuzzResponse: what we take for a response, net/http takes for the same.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.1 204 No\r\n\r\n", "HTTP/1.0 200\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n", "HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n",
	} {
		f.Add([]byte(s), byte(0))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece byte) {
		c := client{method: "GET", upgrade: true}
		c.in = input{nc: &memory{bytes.NewReader(in), int(piece) + 1}}
		c.parser.maxFields, c.body.maxFields, c.body.maxBytes, c.body.in = 100, 100, 4096, &c.in
		block, err := c.in.head(4096)
		if err != nil || c.parser.response(block, &c.resp) != nil || c.resp.Status < 200 || c.begin() != nil {
			return
		}
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), nil)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", block, err)
		}
		got, err := io.ReadAll(&c.body)
		if err != nil {
			return
		}
		want, err := io.ReadAll(r.Body)
		if r.StatusCode != c.resp.Status || err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d %q is not %d %q (%v)", c.resp.Status, got, r.StatusCode, want, err)
		}
	})
}

// FuzzChunked: a chunked body comes out the same however it comes in, and the reader stops where it ends.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\nrest"), byte(0), byte(1))
	f.Add([]byte("003;a=\"b\"\r\nabc\r\nA\r\n0123456789\r\n0\r\na: b\r\n\r\n"), byte(3), byte(200))
	f.Fuzz(func(t *testing.T, in []byte, piece, ask byte) {
		read := func(piece, ask int) ([]byte, int, bool) {
			m := &memory{bytes.NewReader(in), piece}
			b := body{in: &input{nc: m}, maxFields: 100, maxBytes: 4096}
			b.reset(bodyChunked, 0)
			var out []byte
			p := make([]byte, ask)
			for {
				n, err := b.Read(p)
				out = append(out, p[:n]...)
				if err != nil {
					return out, m.in.Len() + b.in.w - b.in.r, b.Ended()
				}
			}
		}
		a, restA, okA := read(1, 1)
		b, restB, okB := read(int(piece)+1, 16*int(ask)+1)
		if okA != okB || okA && (restA != restB || !bytes.Equal(a, b)) {
			t.Fatalf("%q, %d left, %v; but %q, %d left, %v", a, restA, okA, b, restB, okB)
		}
	})
}
