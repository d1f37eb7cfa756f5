package hbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Handler answers the CONNECT requests of a server connection.
type Handler interface {
	// ServeCONNECT runs on a goroutine of its own for each stream. It must call Accept or Refuse once; if it
	// does neither, the stream is refused with 503. When it returns, an accepted stream that is still open is
	// closed, unless it was detached. ctx ends with the stream's reset, the connection, or the handler.
	ServeCONNECT(ctx context.Context, r *Request, w ResponseWriter)
}

// ResponseWriter answers one CONNECT.
type ResponseWriter interface {
	// Accept answers 200 with header h and returns the tunnel.
	Accept(h Header) (*Stream, error)
	// Refuse answers with status and ends the stream.
	Refuse(status int, h Header)
	// Detach lets the stream, and the handler's context, outlast ServeCONNECT: they end when done is called, once, by whomever.
	Detach() (done func())
	// RemoteAddr and LocalAddr are those of the connection that carries the stream.
	RemoteAddr() net.Addr
	LocalAddr() net.Addr
}

// ServerConfig configures ServeConn; the zero value is ready to use.
type ServerConfig struct {
	// Drain, when closed, starts a graceful shutdown: GOAWAY, open streams finish, then the connection ends.
	Drain <-chan struct{}
	// Started, if set, is called once the connection can be handed over; it must not block.
	Started func(Live)
	// Budget is what data that waits for its receiver is charged to; nil is none.
	Budget Budget
	// Log receives protocol errors of peers at debug level; nil discards.
	Log *slog.Logger
}

// server is the role of a connection that answers CONNECTs.
type server struct {
	c        *conn
	life     *netx.Life // parent of the handlers' contexts
	handler  Handler
	handlers netx.Workers
	running  int // handlers; guarded by conn.mu
}

// ServeConn serves HBONE on conn, whose TLS handshake is done, until the connection ends; it closes conn.
// All handlers have returned when it returns, and what they have detached is done. The error is nil after a graceful end.
func ServeConn(ctx context.Context, conn net.Conn, h Handler, cfg ServerConfig) error {
	life := netx.NewLife(ctx)
	defer life.End(nil)
	c := newConn(conn, false, cfg.Log)
	c.charge(cfg.Budget)
	s := &server{c: c, life: life, handler: h}
	c.role = s
	defer s.handlers.Wait()
	stop := life.AfterFunc(func() { c.fail(netx.Cause(life)) }) //nolint:contextcheck // life is made from ctx
	defer stop()
	c.start()
	if err := readPreface(conn); err != nil {
		c.die(err)
		return fmt.Errorf("HBONE from %s: %w", conn.RemoteAddr(), err)
	}
	return s.run(cfg)
}

func readPreface(conn net.Conn) error {
	var got [len(h2.Preface)]byte
	conn.SetReadDeadline(time.Now().Add(prefaceTimeout))
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errPrefaceTimeout
		}
		return fmt.Errorf("read client preface: %w", err)
	}
	if string(got[:]) != h2.Preface {
		return h2.ConnError{Code: h2.ProtocolError, Reason: "bad client preface"}
	}
	return conn.SetReadDeadline(time.Time{})
}

// errPrefaceTimeout ends a connection that never became HTTP/2.
var errPrefaceTimeout = errors.New("the peer sends nothing")

// errDrained ends a connection whose last stream ended after GOAWAY.
var errDrained = errors.New("hbone: drained")

// drainOn announces the end when drain closes. Streams that the peer opens before it has seen the first
// GOAWAY are still served: the last id follows a round trip later.
func (s *server) drainOn(drain <-chan struct{}) {
	c := s.c
	select {
	case <-drain:
	case <-c.done:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.reserve(128)
	c.out = h2.AppendGoAway(c.out, 1<<31-1, h2.NoError, "")
	c.out = h2.AppendPing(c.out, false, [8]byte([]byte(drainPing)))
	c.ping.onAck = s.lastCall
	c.flushAsync()
}

// lastCall runs with conn.mu held.
func (s *server) lastCall() {
	c := s.c
	c.goAway, c.goAwayN = true, c.lastID
	c.reserve(128)
	c.out = h2.AppendGoAway(c.out, c.lastID, h2.NoError, "")
	c.flushAsync()
	s.closed()
}

func (s *server) closed() {
	if c := s.c; c.goAway && len(c.streams) == 0 && c.err == nil {
		// Not at once: the END_STREAM that emptied the connection is still queued, and the peer closes first
		// when it is well-behaved.
		go s.hangUp()
	}
}

func (s *server) hangUp() {
	c := s.c
	c.mu.Lock()
	for c.writing && c.err == nil {
		c.turn.Wait()
	}
	c.turn.Signal()
	c.mu.Unlock()
	c.fail(errDrained)
}

func (s *server) goneAway(uint32) {} // the client opens no more streams, which needs nothing of us

func (s *server) headers(f h2.Frame, fields []h2.HeaderField, bad error) error {
	c := s.c
	id := f.StreamID
	c.mu.Lock()
	if old := c.streams[id]; old != nil {
		c.mu.Unlock()
		return c.trailers(old, f, bad)
	}
	if id%2 == 0 || id <= c.lastID {
		c.mu.Unlock()
		if id%2 == 1 && bad == nil && f.EndStream() {
			return nil // trailers of a stream that was reset here
		}
		return h2.ConnError{Code: h2.ProtocolError, Reason: "HEADERS on a closed or invalid stream"}
	}
	c.lastID = id
	draining := c.goAway && id > c.goAwayN
	full := len(c.streams) >= maxServerStreams || s.running >= 2*maxServerStreams
	c.mu.Unlock()
	switch {
	case draining:
		return nil
	case full:
		return h2.StreamError{StreamID: id, Code: h2.RefusedStream, Reason: "too many streams"}
	}
	var se h2.StreamError
	if errors.As(bad, &se) {
		if se.Reason == h2.ErrHeaderListTooLarge {
			return s.refuse(id, 431)
		}
		return bad
	}
	req, status := parseRequest(fields)
	if status != 0 {
		return s.refuse(id, status)
	}
	s.open(id, req, f.EndStream())
	return nil
}

// refuse answers a request that never becomes a stream.
func (s *server) refuse(id uint32, status int) error {
	return s.c.queueControl(func(b []byte) []byte {
		var block [8]byte
		b = h2.AppendHeaders(b, id, true, h2.AppendStatus(block[:0], status), h2.MinMaxFrameSize)
		return h2.AppendRSTStream(b, id, h2.NoError) // RFC 9113 8.1: the request need not be finished
	})
}

// parseRequest returns the CONNECT, or the status to refuse with.
func parseRequest(fields []h2.HeaderField) (*Request, int) {
	r := &Request{}
	method := ""
	for _, f := range fields {
		switch f.Name {
		case ":method":
			method = f.Value
		case ":authority":
			r.Authority = f.Value
		case ":scheme", ":path", ":protocol", ":status":
			return nil, 400 // not a plain CONNECT
		default:
			if f.Name[0] == ':' {
				return nil, 400
			}
			r.Header = append(r.Header, Field{f.Name, f.Value})
		}
	}
	if method != "CONNECT" || r.Authority == "" {
		return nil, 400
	}
	return r, 0
}

// open starts the handler of a new stream.
func (s *server) open(id uint32, req *Request, ended bool) {
	c := s.c
	life := netx.NewLife(s.life)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		life.End(c.err)
		return
	}
	st := newStream(c, id)
	st.life = life
	st.remoteEnded, st.eof = ended, ended
	c.streams[id] = st
	s.running++
	c.mu.Unlock()
	s.handlers.Go(func() {
		w := &responder{Stream: st, server: s}
		s.handler.ServeCONNECT(life, req, w)
		if !w.detached {
			s.handled(w)
		}
	})
}

// handled ends what a handler has left.
func (s *server) handled(w *responder) {
	st := w.Stream
	if !w.done {
		w.Refuse(503, nil)
	}
	st.Close()
	st.life.End(nil)
	s.c.mu.Lock()
	s.running--
	s.c.mu.Unlock()
}

// responder is the ResponseWriter of one stream; used by its handler only.
type responder struct {
	*Stream
	server   *server
	done     bool
	detached bool
}

// Detach implements [ResponseWriter].
func (w *responder) Detach() (done func()) {
	w.detached = true
	w.server.handlers.Hold()
	return w.finish
}

// finish is the end of a stream that has outlasted its handler.
func (w *responder) finish() {
	w.server.handled(w)
	w.server.handlers.Release()
}

var errAnswered = errors.New("hbone: request already answered")

// Accept implements [ResponseWriter].
func (w *responder) Accept(h Header) (*Stream, error) {
	if err := w.answer(200, h, false); err != nil {
		return nil, err
	}
	return w.Stream, nil
}

// Refuse implements [ResponseWriter].
func (w *responder) Refuse(status int, h Header) {
	if w.answer(status, h, true) == nil {
		w.Close()
	}
}

func (w *responder) answer(status int, h Header, end bool) error {
	if w.done {
		return errAnswered
	}
	w.done = true
	var scratch [256]byte
	block := h2.AppendStatus(scratch[:0], status)
	for _, f := range h {
		block = h2.AppendField(block, f.Key, f.Value)
	}
	s, c := w.Stream, w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sendErr != nil {
		return s.sendErr
	}
	c.reserve(len(block) + 64)
	c.out = h2.AppendHeaders(c.out, s.id, end, block, int(c.peer.MaxFrameSize))
	s.answered = true
	if end {
		s.localEnded, s.sendErr = true, net.ErrClosed
		if !s.remoteEnded {
			// The client need not finish a request that was refused (RFC 9113 section 8.1).
			c.out = h2.AppendRSTStream(c.out, s.id, h2.NoError)
			s.remoteEnded = true
		}
		c.retireLocked(s)
	}
	c.flush()
	return nil
}

// trailers ends a stream that the peer ends by HEADERS. CONNECT has none, but some proxies send them.
func (c *conn) trailers(s *Stream, f h2.Frame, bad error) error {
	if bad != nil || !f.EndStream() {
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ProtocolError, Reason: "HEADERS within a tunnel"}
	}
	c.mu.Lock()
	ended := s.remoteEnded
	c.mu.Unlock()
	if ended {
		return h2.StreamError{StreamID: f.StreamID, Code: h2.StreamClosed, Reason: "HEADERS after END_STREAM"}
	}
	s.deliver(nil, true)
	c.remoteEnd(s)
	return nil
}
