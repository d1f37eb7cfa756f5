package h1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	// watchDelay is how long a request may take before we look whether its client is still there.
	watchDelay = 50 * time.Millisecond
	// maxDiscard is how much of a request that nobody wanted to read is read to keep the connection.
	maxDiscard = 256 << 10
	// lingerTime bounds how long we wait for a client to read the last response before we hang up.
	lingerTime = time.Second
)

// server is one connection, and the request that it carries now.
type server struct {
	// immutable
	nc      net.Conn
	cfg     ServerConfig
	handler httpmsg.Handler
	gone    chan struct{}

	// of the goroutine that reads: Serve's between requests
	in     input
	parser parser
	req    httpmsg.Head
	body   body
	watch  watch

	wantGone atomic.Bool // the handler asked for Gone
	raw      atomic.Bool // Tunnel was called: what comes is the handler's
	wentAway sync.Once

	mu        sync.Mutex // guards the rest
	out       output
	waiting   bool // for a request
	responded bool
	informed  bool // a 100 was sent
	close     bool // this exchange is the last
	tunnel    bool // an upgrade or a CONNECT was accepted
}

// Serve answers the requests of a connection, one after the other, until it ends; it closes conn. The error is nil after an end
// that nobody needs to hear of.
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
	s := &server{nc: conn, cfg: cfg, handler: h, gone: make(chan struct{}), out: newOutput(conn)}
	s.in = input{nc: conn, blank: maxBlank, idle: cfg.IdleTimeout, slow: cfg.HeaderTimeout}
	s.in.lend, _ = conn.(netx.Lender)
	s.parser.maxFields, s.parser.unfold = cfg.MaxHeaders, cfg.Unfold
	s.body.in, s.body.maxFields, s.body.maxBytes = &s.in, cfg.MaxHeaders, cfg.MaxHeaderBytes
	s.watch.in, s.watch.delay, s.watch.lost = &s.in, watchDelay, s.lost
	return s
}

// run serves the connection.
func (s *server) run(ctx context.Context) error {
	forget := s.begun(ctx)
	return s.ended(ctx, forget, s.serve(ctx))
}

// begun has the connection end with ctx and drain with what is to drain it, until the result is called.
func (s *server) begun(ctx context.Context) (forget func()) {
	stop := context.AfterFunc(ctx, func() { s.nc.Close() })
	if s.cfg.Drain == nil {
		return func() { stop() }
	}
	stay := context.AfterFunc(s.cfg.Drain, s.drain) //nolint:contextcheck // it ends apart from ctx
	return func() { stop(); stay() }
}

// ended ends a connection on which nothing is served any more.
func (s *server) ended(ctx context.Context, forget func(), err error) error {
	forget()
	s.watch.stop()
	s.leave()
	s.nc.Close()
	s.in.release()
	s.out.drop()
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("HTTP/1 from %s: %w", s.nc.RemoteAddr(), err)
}

func (s *server) serve(ctx context.Context) error {
	for {
		if err := s.received(s.wait()); err != nil {
			return s.refuse(err)
		}
		s.handler(ctx, s)
		s.watch.stop()
		if again, err := s.settle(); !again {
			return err
		}
	}
}

// wait reads the head of the next request. Most connections are in it for most of their life, so it keeps little on the stack.
func (s *server) wait() ([]byte, error) {
	s.in.restart()
	if s.in.w == 0 {
		s.in.arm(s.in.idle, false) // before waiting is set: nothing may overwrite the deadline by which drain wakes us
	}
	s.mu.Lock()
	if s.draining() {
		s.mu.Unlock()
		return nil, io.EOF
	}
	s.waiting = true
	s.mu.Unlock()
	return s.in.head(s.cfg.MaxHeaderBytes)
}

// received makes a request of what wait has returned.
func (s *server) received(block []byte, err error) error {
	s.mu.Lock()
	s.waiting = false
	s.mu.Unlock()
	if err != nil && s.draining() && errors.Is(err, os.ErrDeadlineExceeded) {
		if s.in.w == 0 {
			return io.EOF
		}
		s.in.deadline = past() // so that it is set anew: half a request deserves its answer
		block, err = s.in.head(s.cfg.MaxHeaderBytes)
	}
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded) && s.in.w == 0:
		return io.EOF // idle
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{408, "head did not come in time"}
	default:
		return err
	}
	err = s.parser.request(block, &s.req, s.cfg.Scheme)
	switch {
	case s.cfg.RefuseHTTP10 && (err == errVersion || err == errNoVersion): //nolint:errorlint // they are never wrapped
		return &Error{426, "another version than HTTP/1.1"}
	case err != nil:
		return err
	}
	if s.req.Version == httpmsg.HTTP10 && s.cfg.RefuseHTTP10 {
		return &Error{426, "HTTP/1.0"}
	}
	s.begin()
	return nil
}

// begin prepares the exchange of a request that was just parsed.
func (s *server) begin() {
	kind := bodyNone
	switch {
	case s.parser.chunked:
		kind = bodyChunked
	case s.parser.length > 0:
		kind = bodyLength
	}
	s.body.reset(kind, s.parser.length)
	s.wantGone.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responded, s.informed, s.tunnel = false, false, false
	s.close = !s.parser.persists(s.req.Version)
	s.out.begin(bodyNone, 0, false)
}

// refuse answers a message that is no request, if err is of the peer's making.
func (s *server) refuse(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		if isReset(err) {
			return nil
		}
		return err
	}
	s.cfg.Log.Debug("refusing HTTP/1 request", "peer", s.nc.RemoteAddr(), "err", err)
	if s.cfg.Refused != nil {
		s.cfg.Refused(e.Status, e.Reason)
	}
	if e == errNotHTTP {
		return err
	}
	s.mu.Lock()
	text := reason(e.Status)
	if e == errNoHost || e == errNoVersion {
		text = ""
	}
	s.out.reserve(256 + len(s.cfg.ServerName))
	b := appendStatusLine(s.out.buf, httpmsg.HTTP11, e.Status)
	b = appendNumber(b, int64(len(text)))
	if text != "" {
		b = append(b, "content-type: text/plain\r\n"...)
	}
	if s.cfg.ServerName != "" {
		b = append(append(append(b, "server: "...), s.cfg.ServerName...), "\r\n"...)
	}
	b = append(b, "connection: close\r\n\r\n"...)
	s.out.buf = append(b, text...)
	s.nc.SetWriteDeadline(time.Now().Add(lingerTime)) // a client that takes nothing is not waited for
	_ = s.out.flush()                                 // err is the news
	s.mu.Unlock()
	s.linger()
	return err
}

// settle ends the exchange after its handler returned, and tells whether another may follow.
func (s *server) settle() (again bool, err error) {
	s.mu.Lock()
	responded, done, last, tunnel := s.responded, s.out.done, s.close, s.tunnel
	failed := s.out.err
	s.mu.Unlock()
	switch {
	case tunnel:
		return false, nil
	case failed != nil:
		return false, nil // the client went away
	case !responded || !done:
		s.Reset(0)
		return false, nil
	}
	if s.in.interrupted.Load() {
		s.linger()
		return false, nil
	}
	if !s.body.Ended() {
		var e *Error
		if errors.As(s.body.err, &e) {
			return false, s.body.err
		}
		if last || s.req.Expects && !s.informed || !s.skip() {
			s.linger()
			return false, nil
		}
	}
	if last {
		s.linger()
		return false, nil
	}
	return true, nil
}

// skip reads what is left of the request.
func (s *server) skip() bool {
	s.in.arm(lingerTime, true)
	s.in.strict = true
	defer func() { s.in.strict = false }()
	return s.body.discard(maxDiscard, make([]byte, 4<<10))
}

// linger closes in a way that lets the client read what we sent: closing a socket with unread bytes would reset it.
func (s *server) linger() {
	c, ok := s.nc.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	s.nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, s.nc, maxDiscard) // either way the end follows
}

// draining reports whether the shutdown has begun. It asks the context itself: drain may be late.
func (s *server) draining() bool { return s.cfg.Drain != nil && s.cfg.Drain.Err() != nil }

// drain ends the connection when it is idle, or after the exchange under way.
func (s *server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting {
		s.nc.SetReadDeadline(past())
	}
}

// lost is what the watch found.
func (s *server) lost(_ int, err error) {
	if err != nil {
		s.leave()
	}
}

// leave tells the handler that the client went away.
func (s *server) leave() { s.wentAway.Do(func() { close(s.gone) }) }
