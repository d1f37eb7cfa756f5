package httpmsg

import (
	"context"
	"errors"
	"io"
	"net"
)

// Version of HTTP that an exchange uses on one side.
type Version uint8

// The versions.
const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP2  Version = 20
)

// String is as in a request line and in access logs: "HTTP/1.1", "HTTP/2".
func (v Version) String() string {
	switch v {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	}
	return "HTTP/2"
}

// Head is what precedes the body of a message: of a request, or, when Status is not 0, of a response. Header holds neither
// pseudo-header fields nor what frames the message (host, connection, keep-alive, transfer-encoding, content-length, upgrade).
type Head struct {
	Version Version

	Method, Scheme, Authority string
	Path                      string // with the query; "*" of OPTIONS; "" of CONNECT
	// Upgrade is the protocol that a request asks to switch to, in lower case: "websocket". It is an HTTP/1.1 Upgrade, or the
	// :protocol of an extended CONNECT (RFC 8441), whose Method then is "GET".
	// The body of such a request, as of a CONNECT, is empty: what follows belongs to the tunnel.
	Upgrade string

	Status int // 101 accepts an upgrade, whatever the version; 2xx accepts a CONNECT

	// ContentLength is -1 when the message does not say.
	ContentLength int64
	// Expects is whether the client waits for a 100 before it sends the body. A server codec sends the 100 by itself when the
	// handler reads the body before it has sent one.
	Expects bool
	Header  Header
}

// Reset empties the head and keeps its memory.
func (h *Head) Reset() {
	h.Header.Reset()
	*h = Head{Header: h.Header, ContentLength: -1}
}

// Incoming is the body of a message that is being received.
type Incoming interface {
	// Read returns io.EOF at the end of the message, another error when it was cut short.
	io.Reader
	// Trailer is valid after io.EOF; nil when there is none.
	Trailer() *Header
	// Ended is whether nothing of the body is left, as far as that is known without waiting: a request or response for which it is
	// true at once has neither body nor trailer. The last bytes of a body may come together with io.EOF.
	Ended() bool
	// Buffered is how many bytes Read can return without waiting, as far as that is certain.
	Buffered() int
}

// Outgoing is the body of a message that is being sent. The head that went before it (Open, Respond) and what is written may be
// held back, so that a small message is a single write: who waits for something else before the next Write or Finish calls Flush.
type Outgoing interface {
	// Write sends part of the body. It may block by flow control, and keeps nothing of p.
	io.Writer
	// Flush sends what the head and Write hold back.
	Flush() error
	// Finish ends the message; trailer may be nil.
	Finish(trailer *Header) error
}

// ErrNotSent is wrapped by errors of requests that the peer has surely not processed: sending them again is safe.
var ErrNotSent = errors.New("request was not processed")

// ErrReset is wrapped by errors of exchanges that the peer aborted.
var ErrReset = errors.New("stream reset")

// ServerStream is one request on the server's side, and the way to answer it. It belongs to one goroutine, but reading and
// writing may be two. Once the handler has returned nobody may use it: it may serve another request.
type ServerStream interface {
	Incoming
	Outgoing
	// Request may be changed by the handler. It is valid until the handler returns.
	Request() *Head
	// Inform sends an interim response: 100, 103.
	Inform(h *Head) error
	// Respond sends the head of the response; end says that no body follows. Then Write and Finish, or, after a 101 or the 2xx of a
	// CONNECT, Tunnel.
	Respond(h *Head, end bool) error
	// Tunnel is the raw connection after an upgrade or a CONNECT was accepted.
	Tunnel() (Stream, error)
	// Interrupt makes Read fail with os.ErrDeadlineExceeded from now on, also one that is waiting: a response can still be sent. Any
	// goroutine may call it, until the handler returns.
	Interrupt()
	// Reset aborts the exchange: RST_STREAM with that code, or closes an HTTP/1 connection. Whatever waits for the stream fails. Any
	// goroutine may call it, until the handler returns; it does not wait for the client.
	Reset(code uint32)
	// Gone is closed when the client reset the stream or went away. The channel may be waited for by any goroutine, and for any time:
	// it is never closed for what becomes of another request.
	Gone() <-chan struct{}
}

// Handler answers requests. The codec calls it on a goroutine of its own; the exchange ends when it returns: what is not
// finished then is reset. ctx is the connection's; [ServerStream].Gone tells of the end of a single request.
type Handler func(ctx context.Context, s ServerStream)

// ClientStream is one request on the client's side.
type ClientStream interface {
	Outgoing
	Incoming
	// Response waits for the final head; interim ones go to inform, which may be nil. It is valid until Close.
	Response(ctx context.Context, inform func(*Head)) (*Head, error)
	// Tunnel is the raw connection after the peer accepted an upgrade or a CONNECT.
	Tunnel() (Stream, error)
	// Cancel gives the exchange up: whatever waits for the stream fails. Any goroutine may call it, and again, until Close; it does not
	// wait for the peer, and is no Close.
	Cancel()
	// Close gives up what is still open of the exchange, and gives back its memory. It must be called once, by the one goroutine to
	// which the stream belongs: after it nobody may use the stream, which may serve another request.
	Close()
}

// ClientConn is a connection that carries requests: one at a time (HTTP/1), or many.
type ClientConn interface {
	// Open sends the head of a request; end says that no body follows. h is not kept.
	Open(ctx context.Context, h *Head, end bool) (ClientStream, error)
	// Free is how many more requests it takes now: 0 when it is busy, closing or broken.
	Free() int
	// Active is how many requests are open.
	Active() int
	// Done is closed when the connection takes no more requests (GOAWAY, Connection: close, an error).
	Done() <-chan struct{}
	// Close ends the connection at once.
	Close() error
}

// Stream is a byte stream with half-close.
type Stream interface {
	net.Conn
	CloseWrite() error
}
