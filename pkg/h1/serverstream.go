package h1

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Read implements [httpmsg.ServerStream].
func (s *server) Read(p []byte) (int, error) {
	if s.body.err != nil {
		return 0, s.body.err
	}
	if s.req.Expects {
		s.invite()
	}
	n, err := s.body.Read(p)
	if err != nil {
		if s.body.Ended() {
			if s.wantGone.Load() {
				s.watch.arm()
			}
			return n, err
		}
		s.leave()
		err = fmt.Errorf("read request body: %w", aborted(err))
	}
	return n, err
}

// Trailer implements [httpmsg.ServerStream].
func (s *server) Trailer() *httpmsg.Header { return s.body.Trailer() }

// Ended implements [httpmsg.ServerStream].
func (s *server) Ended() bool { return s.body.Ended() }

// Buffered is how many bytes of the body can be read without waiting.
func (s *server) Buffered() int { return s.body.Buffered() }

// Request implements [httpmsg.ServerStream].
func (s *server) Request() *httpmsg.Head { return &s.req }

// invite sends the 100 that the client waits for, unless there is a response.
func (s *server) invite() {
	if !s.mu.TryLock() {
		return // a response is being written
	}
	defer s.mu.Unlock()
	if !s.informed && !s.responded {
		s.informed = true
		s.out.reserve(64)
		s.out.buf = append(s.out.buf, "HTTP/1.1 100 Continue\r\n\r\n"...)
		_ = s.out.flush() // the error stays with out
	}
}

// Inform implements [httpmsg.ServerStream].
func (s *server) Inform(h *httpmsg.Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.responded:
		return errResponded
	case h.Status < 100 || h.Status >= 200 || h.Status == 101:
		return errInvalidHead
	case s.req.Version == httpmsg.HTTP10:
		return nil // it knows no interim responses
	case h.Status == 100 && (s.informed || !s.req.Expects):
		return nil // the client has it, or did not ask
	case h.Status == 100:
		s.informed = true
	}
	s.out.reserve(512)
	s.out.buf = appendStatusLine(s.out.buf, httpmsg.HTTP11, h.Status)
	s.out.buf = appendFields(s.out.buf, &h.Header)
	s.out.buf = append(s.out.buf, "\r\n"...)
	return s.out.flush()
}

// Respond implements [httpmsg.ServerStream].
func (s *server) Respond(h *httpmsg.Head, end bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.responded:
		return errResponded
	case h.Status == 101 && s.req.Upgrade == "", h.Status < 200 && h.Status != 101, h.Status > 999, !safe(h.Upgrade):
		return errInvalidHead
	case s.out.err != nil:
		return s.out.err
	}
	s.responded = true
	s.tunnel = h.Status == 101 || s.req.Method == "CONNECT" && h.Status < 300
	s.out.reserve(1 << 10)
	b := appendStatusLine(s.out.buf, s.req.Version, h.Status)
	b = appendFields(b, &h.Header)
	var kind bodyKind
	var length int64
	b, kind, length = s.frame(b, h, end)
	b = s.connection(b, h)
	s.out.buf = append(b, "\r\n"...)
	s.out.begin(kind, length, !hasBody(s.req.Method, h.Status))
	switch {
	case s.tunnel:
		s.out.done = true
		return s.out.flush()
	case end:
		return s.finish(nil)
	}
	return nil
}

// frame writes how the response's body is delimited.
func (s *server) frame(b []byte, h *httpmsg.Head, end bool) ([]byte, bodyKind, int64) {
	if !hasBody(s.req.Method, h.Status) {
		if h.ContentLength >= 0 && (s.req.Method == "HEAD" || h.Status == 304) {
			b = appendNumber(b, h.ContentLength)
		}
		return b, bodyNone, 0
	}
	if s.req.Version == httpmsg.HTTP10 && !end && h.ContentLength < 0 {
		s.close = true
		return b, bodyClose, 0
	}
	return appendLength(b, h.ContentLength, end, true)
}

// connection writes what the response says about the connection.
func (s *server) connection(b []byte, h *httpmsg.Head) []byte {
	if s.draining() || s.req.Expects && !s.informed || s.in.interrupted.Load() {
		s.close = true
	}
	switch {
	case h.Status == 101:
		protocol := h.Upgrade
		if protocol == "" {
			protocol = s.req.Upgrade
		}
		b = append(b, "connection: Upgrade\r\nupgrade: "...)
		b = append(b, protocol...)
		return append(b, "\r\n"...)
	case s.tunnel:
	case s.close:
		return append(b, "connection: close\r\n"...)
	case s.req.Version == httpmsg.HTTP10:
		return append(b, "connection: keep-alive\r\n"...)
	}
	return b
}

// Write implements [httpmsg.ServerStream].
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.responded {
		return 0, errNoHead
	}
	n, err := s.out.body(p)
	if s.out.err != nil {
		s.leave()
		err = fmt.Errorf("write response: %w", aborted(err))
	}
	return n, err
}

// Flush implements [httpmsg.ServerStream].
func (s *server) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.flush()
}

// Finish implements [httpmsg.ServerStream].
func (s *server) Finish(trailer *httpmsg.Header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.responded {
		return errNoHead
	}
	return s.finish(trailer)
}

func (s *server) finish(trailer *httpmsg.Header) error {
	err := s.out.finish(trailer)
	if errors.Is(err, errTooLittle) {
		s.out.err = err // the client can only be told by the end of the connection
		netx.Abort(s.nc)
	}
	return err
}

// Tunnel implements [httpmsg.ServerStream].
func (s *server) Tunnel() (httpmsg.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tunnel || s.raw.Swap(true) {
		return nil, errNoTunnel
	}
	s.watch.end()
	s.in.arm(0, true)
	return &tunnel{Conn: s.nc, in: &s.in}, nil
}

// Interrupt implements [httpmsg.ServerStream]. The connection ends with the exchange.
func (s *server) Interrupt() { s.in.interrupt() }

// Reset implements [httpmsg.ServerStream].
func (s *server) Reset(uint32) {
	netx.Abort(s.nc)
	s.leave()
}

// Gone implements [httpmsg.ServerStream].
func (s *server) Gone() <-chan struct{} {
	if !s.wantGone.Swap(true) && s.body.Ended() && !s.raw.Load() {
		s.watch.arm()
	}
	return s.gone
}

// aborted marks the errors by which a connection tells that the peer gave up.
func aborted(err error) error {
	if isReset(err) {
		return fmt.Errorf("%w: %w", httpmsg.ErrReset, err)
	}
	return err
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
