package h2conn

import (
	"bytes"
	"errors"
	"net"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Protocol is what a connection turned out to speak.
type Protocol uint8

// The protocols that Sniff tells apart.
const (
	Unknown Protocol = iota // not HTTP, or nothing came in time
	HTTP1
	HTTP2
	HTTP10
)

// String is the name as in ALPN, "" of Unknown.
func (p Protocol) String() string {
	switch p {
	case HTTP1:
		return "http/1.1"
	case HTTP2:
		return "h2c"
	case HTTP10:
		return "http/1.0"
	}
	return ""
}

const (
	sniffSize = 4 << 10
	// maxMethod bounds what may be the method of a request line.
	maxMethod = 32
)

// Sniff finds out by the first bytes what the client speaks, and waits for them no longer than timeout (0: for ever). It asks for
// the whole preface of HTTP/2 or the whole request line of HTTP/1, of which all but the start of a long one is looked at. The
// returned connection is conn with those bytes not yet read; it is valid with Unknown and nil, too. An error is the connection's.
func Sniff(conn net.Conn, timeout time.Duration) (Protocol, net.Conn, error) {
	if timeout > 0 {
		conn.SetReadDeadline(time.Now().Add(timeout))
		defer conn.SetReadDeadline(time.Time{})
	}
	buf := make([]byte, 512)
	for n := 0; ; {
		k, err := conn.Read(buf[n:])
		n += k
		p, sure := guess(buf[:n], n == sniffSize)
		if sure {
			return p, newReplay(conn, buf[:n]), nil
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return Unknown, newReplay(conn, buf[:n]), nil
		case err != nil && n > 0:
			return Unknown, newReplay(conn, buf[:n]), nil // reading on will find the error
		case err != nil:
			return Unknown, conn, err
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, sniffSize-n)...)
		}
	}
}

// guess tells what b is the start of, and whether more bytes could change that; full says that there will be no more.
func guess(b []byte, full bool) (p Protocol, sure bool) {
	switch {
	case len(b) == 0:
		return Unknown, false
	case len(b) >= len(h2.Preface) && string(b[:len(h2.Preface)]) == h2.Preface:
		return HTTP2, true
	case len(b) < len(h2.Preface) && string(b) == h2.Preface[:len(b)]:
		return Unknown, false
	}
	method, rest, found := bytes.Cut(b, []byte(" "))
	if !methodLike(method) {
		return Unknown, true
	}
	if !found {
		return Unknown, false
	}
	line, _, ended := bytes.Cut(rest, []byte("\n"))
	for _, c := range line {
		if c < ' ' && c != '\r' || c == 0x7f {
			return Unknown, true
		}
	}
	if !ended {
		if full {
			return HTTP1, true // a long target
		}
		return Unknown, false
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case bytes.HasSuffix(line, []byte(" HTTP/1.1")):
		return HTTP1, true
	case bytes.HasSuffix(line, []byte(" HTTP/1.0")):
		return HTTP10, true
	}
	return Unknown, true
}

func methodLike(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= maxMethod
}

// replay is a connection of which the first bytes were read already.
type replay struct {
	net.Conn
	rest []byte
}

func newReplay(conn net.Conn, rest []byte) net.Conn {
	if l, ok := conn.(netx.Lender); ok {
		return &lendingReplay{replay{conn, rest}, l}
	}
	return &replay{conn, rest}
}

// lendingReplay is a replay of a connection that lends.
type lendingReplay struct {
	replay
	lender netx.Lender
}

// ReadLent implements [netx.Lender].
func (r *lendingReplay) ReadLent(size int) (b []byte, n int, err error) {
	if len(r.rest) == 0 {
		return r.lender.ReadLent(size)
	}
	b = netx.Pool.Get(size)
	n, err = r.Read(b)
	return b, n, err
}

// Read implements net.Conn.
func (r *replay) Read(p []byte) (int, error) {
	if len(r.rest) > 0 {
		n := copy(p, r.rest)
		if r.rest = r.rest[n:]; len(r.rest) == 0 {
			r.rest = nil
		}
		return n, nil
	}
	return r.Conn.Read(p)
}

// Buffered returns what is not read yet, once, and the connection itself: for those who can join two sockets in the kernel.
func (r *replay) Buffered() ([]byte, net.Conn) {
	b := r.rest
	r.rest = nil
	return b, r.Conn
}

// CloseWrite half-closes, if the connection can.
func (r *replay) CloseWrite() error {
	if c, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
