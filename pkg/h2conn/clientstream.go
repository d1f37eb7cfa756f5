package h2conn

import (
	"context"
	"fmt"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// clientStream is one request on the client's side.
type clientStream struct {
	stream
	role   *client // immutable
	heads  replies
	noBody bool // CONNECT or upgrade: what is written belongs to the tunnel; immutable while the stream is open
}

// Response implements [httpmsg.ClientStream].
func (s *clientStream) Response(ctx context.Context, inform func(*httpmsg.Head)) (*httpmsg.Head, error) {
	s.c.mu.Lock()
	s.c.flush()
	s.c.mu.Unlock()
	for {
		h, err := s.next(ctx.Done() == nil)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read response from %s: %w", s.c.nc.RemoteAddr(), err)
		case h == nil:
			select {
			case <-s.heads.ready:
			case <-ctx.Done():
				return nil, fmt.Errorf("read response from %s: %w", s.c.nc.RemoteAddr(), context.Cause(ctx))
			}
		case h.Status >= 200 || h.Status == 101:
			return h, nil
		case inform != nil:
			inform(h)
		}
	}
}

// Ended implements [httpmsg.ClientStream].
func (s *clientStream) Ended() bool { return s.tunnels() || s.stream.Ended() }

// tunnels is whether a tunnel was accepted of which there is none yet.
func (s *clientStream) tunnels() bool {
	if !s.noBody {
		return false
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.tunnel
}

// Read implements [httpmsg.ClientStream].
func (s *clientStream) Read(p []byte) (int, error) {
	if s.tunnels() {
		return 0, eof()
	}
	n, err := s.stream.Read(p)
	if err != nil && err != eof() { //nolint:errorlint // our own, bare
		err = fmt.Errorf("read response body from %s: %w", s.c.nc.RemoteAddr(), err)
	}
	return n, err
}

// Finish implements [httpmsg.ClientStream].
func (s *clientStream) Finish(trailer *httpmsg.Header) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.noBody {
		return s.sendErr
	}
	return s.finishLocked(trailer)
}

// Tunnel implements [httpmsg.ClientStream].
func (s *clientStream) Tunnel() (httpmsg.Stream, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.tunnel {
		return nil, errNoTunnel
	}
	s.tunnel, s.lent = false, true
	return &tunnel{s: &s.stream}, nil
}

// Cancel implements [httpmsg.ClientStream].
func (s *clientStream) Cancel() { s.cancelWith(h2.Cancel) }

// Close implements [httpmsg.ClientStream].
func (s *clientStream) Close() {
	s.closeWith(h2.Cancel)
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.over && !s.lent {
		s.over = true
		s.role.spares.part(c, s)
	}
}

// forget implements recycled.
func (s *clientStream) forget() {
	*s = clientStream{role: s.role, heads: replies{last: httpmsg.Head{Header: emptied(s.heads.last.Header)}}}
}
