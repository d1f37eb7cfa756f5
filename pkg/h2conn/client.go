package h2conn

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// maxInterim bounds the interim responses to one request that wait to be read.
const maxInterim = 64

// client is the client's end of a connection.
type client struct {
	c     *conn
	ended chan struct{} // readLoop returned

	spares spares[*clientStream] // guarded by conn.mu
}

// NewClient starts HTTP/2 on conn, which it owns from now on.
func NewClient(conn net.Conn, cfg ClientConfig) (httpmsg.ClientConn, error) {
	cfg.defaults()
	if cfg.MaxConcurrentStreams == 0 {
		cfg.MaxConcurrentStreams = 1<<31 - 1
	}
	k := &client{c: newConn(conn, true, cfg.MaxConcurrentStreams, cfg.Options), ended: make(chan struct{})}
	k.c.role = k
	k.c.start()
	go func() {
		defer close(k.ended)
		_ = k.c.readLoop() // what ended it is kept in c.err
	}()
	return k, nil
}

// Open implements [httpmsg.ClientConn].
func (k *client) Open(ctx context.Context, h *httpmsg.Head, end bool) (httpmsg.ClientStream, error) {
	if !isToken(h.Method) || h.Authority != "" && !validAuthority(h.Authority) || h.Upgrade != "" && !isToken(h.Upgrade) {
		return nil, fmt.Errorf("%w: %w", httpmsg.ErrNotSent, errInvalidHead)
	}
	if h.Upgrade != "" {
		select { // RFC 8441 section 3: not before the peer has allowed it
		case <-k.c.ready:
		case <-k.c.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", httpmsg.ErrNotSent, context.Cause(ctx))
		}
	}
	s, err := k.open(h, end)
	if err != nil {
		return nil, fmt.Errorf("open stream to %s: %w: %w", k.c.nc.RemoteAddr(), httpmsg.ErrNotSent, err)
	}
	return s, nil
}

var (
	errGoingAway  = errors.New("connection takes no more requests")
	errFull       = errors.New("peer takes no more requests at a time")
	errNoUpgrades = errors.New("peer does not take upgrades (RFC 8441)")
)

// open allocates the id and queues the HEADERS under one lock: ids must rise on the wire.
func (k *client) open(h *httpmsg.Head, end bool) (*clientStream, error) {
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case c.goAway:
		return nil, errGoingAway
	case k.freeLocked() == 0:
		return nil, errFull
	case h.Upgrade != "" && !c.peer.EnableConnect:
		return nil, errNoUpgrades
	}
	s := k.spares.take()
	if s == nil {
		s = &clientStream{role: k}
	}
	s.noBody = h.Method == "CONNECT" || h.Upgrade != ""
	s.heads.head, s.heads.tunnel, s.heads.upgrade = h.Method == "HEAD", s.noBody, h.Upgrade
	s.replies = &s.heads
	end = end && !s.noBody
	if c.lastID == 0 {
		c.lastID = 1
	} else {
		c.lastID += 2
	}
	if c.lastID >= 1<<31-2 {
		c.noMoreLocked() // the ids are used up
	}
	s.init(c, c.lastID)
	c.streams[s.id] = &s.stream
	start := c.openBlock(blockSize(h))
	c.out = appendRequest(c.out, h)
	c.closeBlock(start, s.id, end)
	if end {
		s.localEndLocked()
		c.flushSoon()
	} else if s.noBody || len(c.out) >= holdLimit {
		c.flush()
	}
	return s, nil
}

func (k *client) settle() { k.spares.settle() }

func (k *client) onWait() {}

// freeLocked is how many more streams may be opened.
func (k *client) freeLocked() int {
	c := k.c
	limit := min(c.limit, c.peer.MaxConcurrentStreams)
	if !c.settled {
		limit = min(limit, unsettledStreams)
	}
	return max(0, int(min(limit, 1<<30))-len(c.streams))
}

// Free implements [httpmsg.ClientConn].
func (k *client) Free() int {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if k.c.goAway || k.c.err != nil {
		return 0
	}
	return k.freeLocked()
}

// Active implements [httpmsg.ClientConn].
func (k *client) Active() int {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return len(k.c.streams)
}

// Done implements [httpmsg.ClientConn].
func (k *client) Done() <-chan struct{} { return k.c.closing }

// Close implements [httpmsg.ClientConn].
func (k *client) Close() error {
	k.c.fail(errClosed)
	<-k.ended
	return nil
}

func (k *client) goneAway(last uint32) {
	c := k.c
	c.noMoreLocked()
	for id, s := range c.streams {
		if id > last {
			s.abortLocked(fmt.Errorf("%w: peer is going away", httpmsg.ErrNotSent))
			c.removeLocked(s, true)
		}
	}
	k.left()
}

// left runs with conn.mu held.
func (k *client) left() {
	if c := k.c; c.goAway && len(c.streams) == 0 && c.err == nil {
		go c.hangUp(errDrained)
	}
}

func (k *client) headers(f h2.Frame, fields []h2.HeaderField, bad error) error {
	c := k.c
	c.mu.Lock()
	st := c.streams[f.StreamID]
	if st == nil {
		idle := c.idleLocked(f.StreamID)
		c.mu.Unlock()
		if idle {
			return h2.ConnError{Code: h2.ProtocolError, Reason: "HEADERS on an idle stream"}
		}
		return nil // of a stream we reset
	}
	answered, ended := st.answered, st.remoteEnded
	c.mu.Unlock()
	if answered || ended {
		return st.onTrailer(f, fields, bad, ended)
	}
	fault := func(why string) error {
		return h2.StreamError{StreamID: st.id, Code: h2.ProtocolError, Reason: why}
	}
	if bad != nil {
		return bad
	}
	if len(fields) > c.opt.MaxHeaders+8 {
		return fault("too many header fields")
	}
	h := &st.replies.last
	if why := parseResponse(fields, h, f.EndStream()); why != "" {
		return fault(string(why))
	}
	if h.Status < 200 {
		interim := *h
		*h = httpmsg.Head{}
		if !st.replies.interim(st, &interim) {
			return fault("too many interim responses")
		}
		return nil
	}
	return k.answer(st, h, f.EndStream())
}

// answer hands on the final head.
func (k *client) answer(st *stream, h *httpmsg.Head, end bool) error {
	r := st.replies
	switch accepted := r.tunnel && h.Status < 300; {
	case accepted && r.upgrade != "":
		h.Status, h.Upgrade = 101, r.upgrade
		fallthrough
	case accepted:
		h.ContentLength = -1
	case h.ContentLength >= 0 && !r.head && h.Status != 304:
		if end && h.ContentLength > 0 {
			return h2.StreamError{StreamID: st.id, Code: h2.ProtocolError, Reason: "content-length without a body"}
		}
		st.expect = h.ContentLength
	}
	k.c.mu.Lock()
	st.answered = true
	st.tunnel = r.tunnel && (h.Status == 101 || h.Status < 300)
	if end { // before the reader hears of it: it may be done with the stream at once
		st.remoteEnded = true
		k.c.retireLocked(st)
	}
	k.c.mu.Unlock()
	st.rmu.Lock()
	r.final = h
	st.eof = end
	st.rmu.Unlock()
	k.c.wakeSoon(st)
	return nil
}

// replies are the heads that came for a request. Guarded by the stream's rmu.
type replies struct {
	ready chan struct{} // one token: something changed; made for who waits with a context that can end

	head    bool   // request: HEAD
	tunnel  bool   // request: CONNECT or upgrade
	upgrade string // request: the protocol

	early []*httpmsg.Head
	final *httpmsg.Head // &last
	last  httpmsg.Head  // of the connection's reader, until it is final
}

// wakeReader wakes who waits for a head or for the body. Called with rmu held.
func (s *stream) wakeReader() {
	s.readable.Broadcast()
	if s.replies == nil || s.replies.ready == nil {
		return
	}
	select {
	case s.replies.ready <- struct{}{}:
	default:
	}
}

// interim takes an interim response.
func (r *replies) interim(s *stream, h *httpmsg.Head) bool {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if len(r.early) >= maxInterim {
		return false
	}
	r.early = append(r.early, h)
	s.wakeReader()
	return true
}

// next waits for the next head, and tells why there will be none. Without a channel it waits for as long as it takes; with one it
// returns nil and nil when nothing is there yet.
func (s *clientStream) next(wait bool) (*httpmsg.Head, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for r := &s.heads; ; {
		switch {
		case len(r.early) > 0:
			h := r.early[0]
			r.early = r.early[1:]
			return h, nil
		case r.final != nil:
			return r.final, nil
		case s.recvErr != nil:
			return nil, s.recvErr
		case !wait:
			if r.ready == nil {
				r.ready = make(chan struct{}, 1)
			}
			return nil, nil //nolint:nilnil // not yet
		}
		s.readable.Wait()
	}
}
