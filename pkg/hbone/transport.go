package hbone

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/tlsrec"
)

// Secured is a connection whose TLS handshake is done. A wrapper around one has a method Unwrap() net.Conn, so that what the
// transport does better than a net.Conn can is not lost: data then passes by the wrapper, all else goes through it.
type Secured = tlsrec.Secured

// Transport says who makes the TLS records under HBONE; the handshake is crypto/tls's in any case.
type Transport uint8

// The transports. A peer cannot tell them apart.
const (
	// Standard is crypto/tls.
	Standard Transport = iota
	// Records is package tlsrec, and crypto/tls for a peer that does not speak TLS 1.3.
	Records
	// Kernel is Records, but that the kernel seals what is sent, where it can: see tlsrec.KernelSeals.
	Kernel
)

// String is the transport's name in configurations.
func (t Transport) String() string {
	switch t {
	case Standard:
		return "crypto-tls"
	case Records:
		return "records"
	case Kernel:
		return "ktls"
	}
	return fmt.Sprintf("transport %d", uint8(t))
}

// MarshalText implements encoding.TextMarshaler.
func (t Transport) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Transport) UnmarshalText(name []byte) error {
	for _, known := range []Transport{Standard, Records, Kernel} {
		if string(name) == known.String() {
			*t = known
			return nil
		}
	}
	return fmt.Errorf("no transport is called %q; want %s, %s or %s", name, Records, Kernel, Standard)
}

// Client shakes hands as a client. On failure the caller closes conn.
func (t Transport) Client(ctx context.Context, conn net.Conn, config *tls.Config) (Secured, error) {
	if t == Standard {
		return standard(ctx, tls.Client(quick(conn), config))
	}
	return t.sealing(tlsrec.Client(ctx, conn, config))
}

// Server is Client for the other end.
func (t Transport) Server(ctx context.Context, conn net.Conn, config *tls.Config) (Secured, error) {
	if t == Standard {
		return standard(ctx, tls.Server(quick(conn), config))
	}
	return t.sealing(tlsrec.Server(ctx, conn, config))
}

// sealing leaves to the kernel what is for it.
func (t Transport) sealing(conn Secured, err error) (Secured, error) {
	if own, ok := conn.(*tlsrec.Conn); ok && err == nil && t == Kernel {
		_ = own.SealInKernel() // where it does not, the connection goes on by itself
	}
	return conn, err
}

func standard(ctx context.Context, conn *tls.Conn) (Secured, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}

// quick is conn with cheaper system calls under the records of TLS, where it can be.
func quick(conn net.Conn) net.Conn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if direct, err := netx.Direct(tcp); err == nil {
			return direct
		}
	}
	return conn
}

// innermost is conn without its wrappers.
func innermost(conn net.Conn) net.Conn {
	for {
		wrapper, ok := conn.(interface{ Unwrap() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.Unwrap()
	}
}
