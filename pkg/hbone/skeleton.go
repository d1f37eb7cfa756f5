package hbone

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Handler answers the CONNECT requests of a server connection.
type Handler interface {
	// ServeCONNECT runs on a goroutine of its own for each stream. It must call Accept or Refuse once.
	// When it returns, an accepted stream that is still open is closed. ctx ends with the stream or connection.
	ServeCONNECT(ctx context.Context, r *Request, w ResponseWriter)
}

// ResponseWriter answers one CONNECT.
type ResponseWriter interface {
	// Accept answers 200 with header h and returns the tunnel.
	Accept(h Header) (*Stream, error)
	// Refuse answers with status and ends the stream.
	Refuse(status int, h Header)
}

// ServerConfig configures ServeConn; the zero value is ready to use.
type ServerConfig struct {
	// Drain, when closed, starts a graceful shutdown: GOAWAY, open streams finish, then the connection ends.
	Drain <-chan struct{}
	// Log receives protocol errors of peers at debug level; nil discards.
	Log *slog.Logger
}

// ServeConn serves HBONE on conn, whose TLS handshake is done, until the connection ends; it closes conn.
// All handlers have returned when it returns. The error is nil after a graceful end.
func ServeConn(ctx context.Context, conn net.Conn, h Handler, cfg ServerConfig) error {
	return errors.ErrUnsupported
}

// Stream is an HBONE tunnel: a net.Conn with half close.
type Stream struct{ net.Conn }

// CloseWrite ends the sending direction (END_STREAM).
func (*Stream) CloseWrite() error { return nil }

// Reset aborts both directions (RST_STREAM with CONNECT_ERROR).
func (*Stream) Reset() {}

// ClientConfig configures a client connection; the zero value is ready to use.
type ClientConfig struct {
	Log *slog.Logger
}

// ClientConn is the client end of an HBONE connection. Safe for concurrent use.
type ClientConn struct{}

// NewClientConn starts HTTP/2 on conn, whose TLS handshake is done. It owns conn from now on.
func NewClientConn(conn net.Conn, cfg ClientConfig) (*ClientConn, error) {
	return nil, errors.ErrUnsupported
}

// Connect opens a tunnel. Another status than 200 is a [*StatusError] (the Response is returned, too).
func (*ClientConn) Connect(ctx context.Context, r *Request) (*Stream, *Response, error) {
	return nil, nil, errors.ErrUnsupported
}

// Close ends the connection and all its streams.
func (*ClientConn) Close() error { return nil }

// PoolKey says which connections may carry a request: same source identity, source address, next hop
// and acceptable peer identities.
type PoolKey struct {
	Source       string // SPIFFE ID of the source workload
	SourceIP     netip.Addr
	Dest         netip.AddrPort
	ExpectedSANs string // canonical: sorted, comma-joined
}

// DialFunc opens a connection for key with its TLS handshake done. See [WithExpiry].
type DialFunc func(ctx context.Context, key PoolKey) (net.Conn, error)

// WithExpiry returns conn such that a Pool opens no new streams on it after t (the certificate's NotAfter).
func WithExpiry(conn net.Conn, t time.Time) net.Conn { return conn }

// PoolConfig configures a Pool; the zero value is ready to use.
type PoolConfig struct {
	Log *slog.Logger
	// IdleTimeout closes a connection without streams; default 5 min.
	IdleTimeout time.Duration
	// DialTimeout bounds one dial; default 10 s.
	DialTimeout time.Duration
	// MaxStreams per connection before another is opened; default 100.
	MaxStreams int
}

// Pool keeps client connections per PoolKey. Safe for concurrent use.
type Pool struct{}

// NewPool returns an empty pool.
func NewPool(dial DialFunc, cfg PoolConfig) *Pool { return &Pool{} }

// Connect opens a tunnel over a pooled or new connection.
func (*Pool) Connect(ctx context.Context, key PoolKey, r *Request) (*Stream, *Response, error) {
	return nil, nil, errors.ErrUnsupported
}

// CloseIdle closes the connections that carry no stream.
func (*Pool) CloseIdle() {}

// Drain refuses new streams and returns when the open ones ended or ctx is done.
func (*Pool) Drain(ctx context.Context) error { return nil }

// Close ends all connections and their streams.
func (*Pool) Close() error { return nil }
