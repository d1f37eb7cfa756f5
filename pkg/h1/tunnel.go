package h1

import (
	"errors"
	"fmt"
	"net"
)

// tunnel is a connection that ceased to be HTTP. What was read too much comes first.
type tunnel struct {
	net.Conn
	in *input // of which only the buffer is used
}

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	if t.in.r < t.in.w {
		n := copy(p, t.in.buf[t.in.r:t.in.w])
		t.in.r += n
		return n, nil
	}
	return t.Conn.Read(p)
}

// Buffered returns what was read and not used, once, and the connection itself: for those who can join two sockets in the kernel.
func (t *tunnel) Buffered() ([]byte, net.Conn) {
	b := t.in.buf[t.in.r:t.in.w]
	t.in.r = t.in.w
	return b, t.Conn
}

// CloseWrite implements [httpmsg.Stream].
func (t *tunnel) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("half-close %T: %w", t.Conn, errors.ErrUnsupported)
}
