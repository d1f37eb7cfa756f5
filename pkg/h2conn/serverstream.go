package h2conn

import (
	"errors"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// Errors of the local side's own making.
var (
	errResponded   = errors.New("response head was already sent")
	errNoHead      = errors.New("response head was not sent")
	errInvalidHead = errors.New("head can't be written as HTTP/2")
	errNoTunnel    = errors.New("neither an upgrade nor a CONNECT was accepted")
)

// serverStream is one request and its answer.
type serverStream struct {
	stream
	run       func() // handles the request; immutable
	req       httpmsg.Head
	tunnelled bool // the request asks for a tunnel: its body is empty until it is one
	informed  bool // a 100 was sent; guarded by conn.mu
	noBody    bool // the response has none, whatever the handler writes; guarded by conn.mu
}

// Request implements [httpmsg.ServerStream].
func (s *serverStream) Request() *httpmsg.Head { return &s.req }

// Ended implements [httpmsg.ServerStream].
func (s *serverStream) Ended() bool { return s.tunnelled || s.stream.Ended() }

// Read implements [httpmsg.ServerStream].
func (s *serverStream) Read(p []byte) (int, error) {
	if s.tunnelled {
		return 0, eof()
	}
	if s.req.Expects {
		s.invite()
	}
	return s.stream.Read(p)
}

// invite sends the 100 that the client waits for, unless there is a response.
func (s *serverStream) invite() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.informed && !s.answered && s.sendErr == nil {
		s.informLocked(&httpmsg.Head{Status: 100, ContentLength: -1})
	}
}

func (s *serverStream) informLocked(h *httpmsg.Head) {
	if h.Status == 100 {
		s.informed = true
	}
	c := s.c
	start := c.openBlock(blockSize(h))
	c.out = appendResponse(c.out, h, h.Status)
	c.closeBlock(start, s.id, false)
	c.flush()
}

// Inform implements [httpmsg.ServerStream].
func (s *serverStream) Inform(h *httpmsg.Head) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.answered:
		return errResponded
	case h.Status < 100 || h.Status >= 200 || h.Status == 101:
		return errInvalidHead
	case s.sendErr != nil:
		return s.sendErr
	}
	if h.Status != 100 || s.req.Expects && !s.informed {
		s.informLocked(h)
	}
	return nil
}

// Respond implements [httpmsg.ServerStream].
func (s *serverStream) Respond(h *httpmsg.Head, end bool) error {
	status := h.Status
	upgraded := status == 101
	if upgraded {
		status = 200
	}
	if upgraded && s.req.Upgrade == "" || status < 200 || status > 999 {
		return errInvalidHead
	}
	accepted := upgraded || s.req.Method == "CONNECT" && status < 300
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.answered:
		return errResponded
	case s.sendErr != nil:
		return s.sendErr
	}
	s.answered, s.tunnel = true, accepted
	s.noBody = !accepted && (s.req.Method == "HEAD" || status == 204 || status == 304)
	start := c.openBlock(blockSize(h))
	if accepted {
		c.out = appendFields(h2.AppendStatus(c.out, status), &h.Header)
	} else {
		c.out = appendResponse(c.out, h, status)
	}
	c.closeBlock(start, s.id, end && !accepted)
	switch {
	case accepted:
		c.flush()
	case end:
		s.localEndLocked()
		c.flushSoon()
	}
	return nil
}

// Write implements [httpmsg.ServerStream].
func (s *serverStream) Write(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case !s.answered:
		return 0, errNoHead
	case s.noBody:
		return len(p), nil
	}
	return s.writeLocked(p)
}

// Finish implements [httpmsg.ServerStream].
func (s *serverStream) Finish(trailer *httpmsg.Header) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.answered {
		return errNoHead
	}
	return s.finishLocked(trailer)
}

// Tunnel implements [httpmsg.ServerStream].
func (s *serverStream) Tunnel() (httpmsg.Stream, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.tunnel {
		return nil, errNoTunnel
	}
	s.tunnel, s.lent = false, true
	return &tunnel{s: &s.stream}, nil
}

// Reset implements [httpmsg.ServerStream].
func (s *serverStream) Reset(code uint32) { s.cancelWith(h2.ErrCode(code)) }

// end is the end of the exchange, after its handler returned.
func (s *serverStream) end() {
	s.c.mu.Lock()
	code := h2.InternalError
	if s.localEnded {
		code = h2.NoError // RFC 9113 section 8.1: the client need not finish the request
	}
	s.c.mu.Unlock()
	s.closeWith(code)
}

// forget implements recycled.
func (s *serverStream) forget() {
	*s = serverStream{run: s.run, req: httpmsg.Head{Header: emptied(s.req.Header)}}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
