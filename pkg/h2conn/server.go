package h2conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// server is the role of a connection that answers requests.
type server struct {
	c        *conn
	cfg      ServerConfig
	ctx      context.Context //nolint:containedctx // the handlers', for the connection's life
	handler  httpmsg.Handler
	handlers sync.WaitGroup
	running  uint32                // handlers; guarded by conn.mu
	lastCall bool                  // the GOAWAY with the last id was sent; guarded by conn.mu
	final    uint32                // that id
	spares   spares[*serverStream] // guarded by conn.mu
	late     *time.Timer           // for the end of a header block; of the reader
	starts   []func()              // handlers of requests that have come; of the reader
}

// Serve answers the requests of a connection until it ends; it closes conn. All handlers have returned when it returns. The error
// is nil after an end that nobody needs to hear of.
func Serve(ctx context.Context, conn net.Conn, h httpmsg.Handler, cfg ServerConfig) error {
	return Prepare(conn, h, cfg)(ctx)
}

// Prepare is Serve for connections that are many and mostly idle: what it returns serves the connection, and takes little room on the
// stack of who waits in it.
func Prepare(conn net.Conn, h httpmsg.Handler, cfg ServerConfig) func(ctx context.Context) error {
	return newServer(conn, h, cfg).run
}

func newServer(conn net.Conn, h httpmsg.Handler, cfg ServerConfig) *server {
	cfg.defaults()
	if cfg.MaxConcurrentStreams == 0 {
		cfg.MaxConcurrentStreams = 100
	}
	if cfg.Go == nil {
		cfg.Go = func(f func()) { go f() }
	}
	c := newConn(conn, false, cfg.MaxConcurrentStreams, cfg.Options)
	s := &server{c: c, cfg: cfg, handler: h}
	c.role = s
	if cfg.HeaderTimeout > 0 {
		c.rd.OnBlock = s.onBlock
	}
	return s
}

// run serves the connection.
func (s *server) run(ctx context.Context) error {
	forget, err := s.begin(ctx)
	if err == nil {
		err = s.c.readLoop()
	}
	return s.end(forget, err)
}

// begin says hello and waits for the client's. The result is to be called in the end.
func (s *server) begin(ctx context.Context) (forget func(), err error) {
	c, cfg := s.c, &s.cfg
	ctx, cancel := context.WithCancel(ctx)
	s.ctx = ctx
	stop := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	forget = func() { stop(); cancel() }
	c.start()
	if err := readPreface(c.nc); err != nil {
		c.die(err)
		return forget, err
	}
	if cfg.IdleTimeout > 0 {
		c.mu.Lock()
		c.idle = time.AfterFunc(cfg.IdleTimeout, s.onIdle)
		c.mu.Unlock()
	}
	if cfg.Drain != nil {
		stay := context.AfterFunc(cfg.Drain, s.drain) //nolint:contextcheck // it ends apart from ctx
		forget = func() { stay(); stop(); cancel() }
	}
	return forget, nil
}

// end waits for the handlers of a connection that was read to its end.
func (s *server) end(forget func(), err error) error {
	if s.late != nil {
		s.late.Stop()
	}
	err = s.result(err)
	forget()
	s.handlers.Wait()
	return err
}

func (s *server) result(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, errDrained) || errors.Is(err, errIdle) || errors.Is(err, context.Canceled) || isReset(err) {
		return nil
	}
	return fmt.Errorf("HTTP/2 from %s: %w", s.c.nc.RemoteAddr(), err)
}

func readPreface(conn net.Conn) error {
	var got [len(h2.Preface)]byte
	conn.SetReadDeadline(time.Now().Add(prefaceTimeout))
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return fmt.Errorf("read client preface: %w", err)
	}
	if string(got[:]) != h2.Preface {
		return h2.ConnError{Code: h2.ProtocolError, Reason: "bad client preface"}
	}
	return conn.SetReadDeadline(time.Time{})
}

// drain: streams that the peer opens before it has seen the first GOAWAY are still served: the last id follows a round trip later.
func (s *server) drain() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.ping.onAck != nil || s.lastCall {
		return
	}
	c.reserve(128)
	c.out = h2.AppendGoAway(c.out, 1<<31-1, h2.NoError, "")
	c.out = h2.AppendPing(c.out, false, [8]byte([]byte(drainPing)))
	c.ping.onAck = s.sendLastCall
	c.flushAsync()
}

// sendLastCall runs with conn.mu held.
func (s *server) sendLastCall() {
	c := s.c
	s.lastCall, s.final = true, c.lastID
	c.noMoreLocked()
	c.reserve(128)
	c.out = h2.AppendGoAway(c.out, c.lastID, h2.NoError, "")
	c.flushAsync()
	s.left()
}

// onBlock runs on the reader when the end of a header block is waited for, and when it came.
func (s *server) onBlock(waits bool) {
	switch {
	case !waits:
		s.late.Stop()
	case s.late == nil:
		s.late = time.AfterFunc(s.cfg.HeaderTimeout, s.onLate)
	default:
		s.late.Reset(s.cfg.HeaderTimeout)
	}
}

// onLate is the tick of the timer for a header block.
func (s *server) onLate() {
	c := s.c
	c.mu.Lock()
	over := c.err != nil
	if !over {
		c.reserve(128)
		c.out = h2.AppendGoAway(c.out, c.lastID, h2.EnhanceYourCalm, errSlowHeaders.Error())
		c.noMoreLocked()
	}
	c.mu.Unlock()
	if over {
		return
	}
	if s.cfg.Refused != nil {
		s.cfg.Refused(408, errSlowHeaders.Error())
	}
	c.hangUp(errSlowHeaders)
}

// onIdle is the idle timer's tick.
func (s *server) onIdle() {
	c := s.c
	c.mu.Lock()
	busy := len(c.streams) > 0 || c.err != nil
	if !busy {
		c.reserve(64)
		c.out = h2.AppendGoAway(c.out, c.lastID, h2.NoError, "")
		c.noMoreLocked()
		s.lastCall, s.final = true, c.lastID
	}
	c.mu.Unlock()
	if !busy {
		c.hangUp(errIdle)
	}
}

func (s *server) left() {
	c := s.c
	if len(c.streams) > 0 || c.err != nil {
		return
	}
	switch {
	case s.lastCall:
		// Not at once: the END_STREAM that emptied the connection is still queued, and the peer closes first when it is well-behaved.
		go c.hangUp(errDrained)
	case c.idle != nil:
		c.idle.Reset(s.cfg.IdleTimeout)
	}
}

func (s *server) goneAway(uint32) {} // the client opens no more streams, which needs nothing of us

func (s *server) headers(f h2.Frame, fields []h2.HeaderField, bad error) error {
	c := s.c
	id := f.StreamID
	c.mu.Lock()
	if old := c.streams[id]; old != nil {
		ended := old.remoteEnded
		c.mu.Unlock()
		return old.onTrailer(f, fields, bad, ended)
	}
	if id%2 == 0 || id <= c.lastID {
		known, byUs := c.ended.find(id)
		c.mu.Unlock()
		return strayHeaders(known && id%2 == 1, byUs)
	}
	c.lastID = id
	late := s.lastCall && id > s.final
	full := uint32(len(c.streams)) >= c.limit || s.running >= 2*c.limit
	c.mu.Unlock()
	switch {
	case late:
		return nil
	case full:
		return h2.StreamError{StreamID: id, Code: h2.RefusedStream, Reason: "too many streams"}
	}
	return s.request(f, fields, bad)
}

func strayHeaders(known, byUs bool) error {
	switch {
	case byUs:
		return nil // was on its way when we reset the stream
	case known:
		return h2.ConnError{Code: h2.StreamClosed, Reason: "HEADERS on a closed stream"}
	}
	return h2.ConnError{Code: h2.ProtocolError, Reason: "HEADERS on an invalid stream"}
}

// request opens the stream of a request.
func (s *server) request(f h2.Frame, fields []h2.HeaderField, bad error) error {
	id := f.StreamID
	switch {
	case bad == nil && len(fields) > s.cfg.MaxHeaders+8, tooLarge(bad):
		return s.refuse(id, 431)
	case bad != nil:
		return bad
	}
	st := s.blank()
	if why := parseRequest(fields, &st.req, f.EndStream(), s.cfg.AnyPath); why != "" {
		return h2.StreamError{StreamID: id, Code: h2.ProtocolError, Reason: string(why)}
	}
	s.open(st, id, f.EndStream())
	return nil
}

func tooLarge(bad error) bool {
	if bad == nil {
		return false
	}
	var se h2.StreamError
	return errors.As(bad, &se) && se.Reason == h2.ErrHeaderListTooLarge
}

// refuse answers a request that never becomes a stream.
func (s *server) refuse(id uint32, status int) error {
	c := s.c
	c.mu.Lock()
	c.ended.add(id, true)
	c.mu.Unlock()
	return c.queueControl(func(b []byte) []byte {
		var block [8]byte
		b = h2.AppendHeaders(b, id, true, h2.AppendStatus(block[:0], status), h2.MinMaxFrameSize)
		return h2.AppendRSTStream(b, id, h2.NoError) // RFC 9113 8.1: the request need not be finished
	})
}

// open has a new stream handled.
func (s *server) open(st *serverStream, id uint32, ended bool) {
	c := s.c
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	st.init(c, id)
	if st.req.ContentLength >= 0 {
		st.expect = st.req.ContentLength
	}
	st.remoteEnded, st.eof = ended, ended
	st.tunnelled = st.req.Upgrade != "" || st.req.Method == "CONNECT"
	c.streams[id] = &st.stream
	s.running++
	c.mu.Unlock()
	s.handlers.Add(1)
	s.starts = append(s.starts, st.run)
}

// onWait starts the handlers of the requests that have come: not before, as their bodies may have come with them.
func (s *server) onWait() {
	for i, run := range s.starts {
		s.starts[i] = nil
		s.cfg.Go(run)
	}
	s.starts = s.starts[:0]
}

// blank is a stream for another request.
func (s *server) blank() *serverStream {
	s.c.mu.Lock()
	st := s.spares.take()
	s.c.mu.Unlock()
	if st == nil {
		st = &serverStream{}
		st.run = func() { s.handle(st) }
	}
	return st
}

// handle has a request answered.
func (s *server) handle(st *serverStream) {
	defer s.handlers.Done()
	s.handler(s.ctx, st)
	st.end()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.running--
	if !st.lent {
		s.spares.part(s.c, st)
	}
}

func (s *server) settle() { s.spares.settle() }

// onTrailer ends the body of a message. It runs on the reader; ended says that the peer ended the stream before.
func (s *stream) onTrailer(f h2.Frame, fields []h2.HeaderField, bad error, ended bool) error {
	fault := func(code h2.ErrCode, why string) error {
		return h2.StreamError{StreamID: s.id, Code: code, Reason: why}
	}
	if ended {
		// RFC 9113 section 5.1: the stream is half-closed by the peer.
		return fault(h2.StreamClosed, "HEADERS after END_STREAM")
	}
	if bad != nil {
		return bad
	}
	if !f.EndStream() {
		return fault(h2.ProtocolError, "trailer without END_STREAM")
	}
	trailer, why := parseTrailer(fields)
	if why != "" {
		return fault(h2.ProtocolError, string(why))
	}
	if err := s.count(0, true); err != nil {
		return err
	}
	s.rmu.Lock()
	s.trailer = trailer
	s.rmu.Unlock()
	s.c.remoteEnd(s)
	s.deliver(nil, true)
	return nil
}
