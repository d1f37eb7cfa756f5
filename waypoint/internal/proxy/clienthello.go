package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// errSeen ends a handshake that was begun to look at the client's first message only.
var errSeen = errors.New("seen")

// recordHandshake is the first byte of a TLS connection.
const recordHandshake = 22

// inspectTLS looks whether the client begins with TLS, and for whom: server name and protocols go into the connection. The
// returned stream has everything that was read still before it.
func (d *downstream) inspectTLS(ctx context.Context, conn netx.Stream) (netx.Stream, error) {
	tape := &tape{Stream: conn}
	if err := conn.SetReadDeadline(time.Now().Add(d.srv.deps.Limits.SniffTimeout)); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	first := make([]byte, 1)
	n, err := conn.Read(first)
	tape.read = append(tape.read, first[:n]...)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(): // the server speaks first
	case err != nil && n == 0:
		return nil, fmt.Errorf("first byte from %s: %w", d.conn.Source, err)
	case first[0] == recordHandshake:
		tape.at = 0
		err := tls.Server(tape, &tls.Config{ //nolint:gosec // no handshake comes of it
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				d.conn.Hello, d.conn.SNI = true, hello.ServerName
				if len(hello.SupportedProtos) > 0 {
					d.conn.ALPN = hello.SupportedProtos[0]
				}
				return nil, errSeen
			},
		}).HandshakeContext(ctx)
		if !errors.Is(err, errSeen) {
			return nil, fmt.Errorf("TLS ClientHello from %s: %w", d.conn.Source, err)
		}
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	return &replay{Stream: conn, left: tape.read}, nil
}

// tape keeps what is read from a stream, and writes nothing.
type tape struct {
	netx.Stream
	read []byte
	at   int
}

// maxHello bounds a ClientHello.
const maxHello = 64 << 10

// Read implements net.Conn: first what was read before the tape was asked.
func (t *tape) Read(p []byte) (int, error) {
	if t.at < len(t.read) {
		n := copy(p, t.read[t.at:])
		t.at += n
		return n, nil
	}
	if len(t.read) > maxHello {
		return 0, io.ErrShortBuffer
	}
	n, err := t.Stream.Read(p)
	t.read = append(t.read, p[:n]...)
	t.at += n
	return n, err
}

// Write drops the alert that ends the handshake.
func (t *tape) Write(p []byte) (int, error) { return len(p), nil }

// replay is a stream of which some was read already.
type replay struct {
	netx.Stream
	left []byte
}

// Read implements net.Conn.
func (r *replay) Read(p []byte) (int, error) {
	if len(r.left) > 0 {
		n := copy(p, r.left)
		r.left = r.left[n:]
		return n, nil
	}
	return r.Stream.Read(p)
}
