package hbone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

// ClientConfig configures a client connection; the zero value is ready to use.
type ClientConfig struct {
	// Log receives protocol errors of peers at debug level; nil discards.
	Log *slog.Logger
	// Budget is what data that waits for its receiver is charged to; nil is none.
	Budget Budget
}

// ClientConn is the client end of an HBONE connection. Safe for concurrent use.
type ClientConn struct {
	c       *conn
	ended   chan struct{} // readLoop returned
	emptied time.Time     // when the last stream left; guarded by conn.mu
	claims  int           // streams that the pool is about to open; guarded by conn.mu
	meter   meter         // guarded by conn.mu
}

// reply is what a Connect waits for; its fields are written before ready is closed, under conn.mu.
type reply struct {
	ready  chan struct{}
	status int
	header Header
	app    *appSide // may be nil
	lent   *Request // whose early bytes have been sent, until they are given back
}

// NewClientConn starts HTTP/2 on conn, whose TLS handshake is done. It owns conn from now on.
func NewClientConn(conn net.Conn, cfg ClientConfig) (*ClientConn, error) {
	cc := &ClientConn{c: newConn(conn, true, cfg.Log), ended: make(chan struct{}), emptied: time.Now()}
	cc.c.role = cc
	cc.c.charge(cfg.Budget)
	cc.c.start()
	go func() {
		defer close(cc.ended)
		_ = cc.c.readLoop() // what ended it is kept in c.err
	}()
	return cc, nil
}

// Connect opens a tunnel. Another status than 200 is a [*StatusError] (the Response is returned, too). An
// error that wraps [ErrNotSent] may be retried on another connection, as may one that wraps [ErrUnanswered].
func (cc *ClientConn) Connect(ctx context.Context, r *Request) (*Stream, *Response, error) {
	return cc.connect(ctx, r, false)
}

// connect is Connect; claimed says that the caller has claimed its place before. Whoever opens a tunnel for an application waits in here
// until that speaks again, so what is needed only before and after is in functions of their own: the stack stays small.
func (cc *ClientConn) connect(ctx context.Context, r *Request, claimed bool) (*Stream, *Response, error) {
	t := &attempt{request: r}
	if err := t.send(cc, claimed); err != nil {
		return nil, nil, err
	}
	if app := t.reply.app; app != nil {
		if t.complete {
			app.park(ctx)
		} else {
			app.leave()
		}
	}
	select {
	case <-t.reply.ready: // whatever ctx says: it bounds the opening only
	default:
		select {
		case <-t.reply.ready:
		case <-ctx.Done():
			t.stream.close(h2.Cancel, false)
			return nil, nil, t.failed(cc, context.Cause(ctx))
		}
	}
	return t.answered(cc)
}

// attempt is one CONNECT on one connection.
type attempt struct {
	request  *Request
	stream   *Stream
	reply    reply
	sent     int  // early bytes
	complete bool // these are all
}

// send opens the stream.
func (t *attempt) send(cc *ClientConn, claimed bool) (err error) {
	r := t.request
	var scratch [512]byte
	block := h2.AppendConnect(scratch[:0], r.Authority)
	for _, f := range r.Header {
		block = h2.AppendField(block, f.Key, f.Value)
	}
	t.reply.ready = make(chan struct{})
	if r.App != nil {
		if t.reply.app, err = newAppSide(r.App, r.Received); err != nil {
			return fmt.Errorf("CONNECT %s: the application's socket: %w", r.Authority, err)
		}
	}
	early := len(r.Early)
	if t.stream, t.sent, err = cc.open(block, r, &t.reply, claimed); err != nil {
		return fmt.Errorf("open HBONE stream to %s: %w", cc.c.nc.RemoteAddr(), err)
	}
	t.complete = t.sent == early
	return nil
}

func (t *attempt) failed(cc *ClientConn, err error) error {
	return fmt.Errorf("CONNECT %s via %s: %w", t.request.Authority, cc.c.nc.RemoteAddr(), err)
}

// answered is what comes of an attempt once the reply is ready.
func (t *attempt) answered(cc *ClientConn) (*Stream, *Response, error) {
	s, r := t.stream, t.request
	if t.reply.status == 0 {
		err := s.failure()
		if t.sent == 0 && !errors.Is(err, ErrNotSent) {
			err = fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
		return nil, nil, t.failed(cc, err)
	}
	resp := &Response{Status: t.reply.status, Header: t.reply.header}
	if resp.Status != 200 {
		s.Close()
		return nil, resp, &StatusError{*resp}
	}
	if !t.complete {
		if _, err := s.Write(r.Early[t.sent:]); err != nil {
			s.Reset()
			return nil, nil, fmt.Errorf("send to %s via %s: %w", r.Authority, cc.c.nc.RemoteAddr(), err)
		}
		r.giveBack()
	}
	return s, resp, nil
}

// open allocates the id and queues the HEADERS under one lock: ids must rise on the wire. It returns how many early bytes went
// with them, which is all or none.
func (cc *ClientConn) open(block []byte, r *Request, wait *reply, claimed bool) (s *Stream, sent int, err error) {
	c, early := cc.c, r.Early
	c.mu.Lock()
	defer c.mu.Unlock()
	if claimed {
		cc.claims-- // from here on the stream itself counts
	}
	switch {
	case c.err != nil:
		return nil, 0, fmt.Errorf("%w: %w", ErrNotSent, c.err)
	case c.goAway || c.retired:
		return nil, 0, fmt.Errorf("%w: peer is going away", ErrNotSent)
	case len(c.streams) >= int(min(c.peer.MaxConcurrentStreams, 1<<20)):
		return nil, 0, fmt.Errorf("%w: peer allows no more streams", ErrNotSent)
	case c.lastID >= 1<<31-2:
		return nil, 0, fmt.Errorf("%w: stream ids used up", ErrNotSent)
	}
	if c.lastID == 0 {
		c.lastID = 1
	} else {
		c.lastID += 2
	}
	s = newStream(c, c.lastID)
	s.reply = wait
	c.streams[s.id] = s
	c.reserve(len(block) + 64)
	c.out = h2.AppendHeaders(c.out, s.id, false, block, int(c.peer.MaxFrameSize))
	if n := len(early); n > 0 && n <= EarlySize && int64(n) <= s.send.Available() && int64(n) <= c.send.Available() && c.blocked.head == nil {
		s.send.Take(int64(n))
		c.send.Take(int64(n))
		c.sent += uint64(n)
		s.queueLocked(early)
		sent, wait.lent = n, r
	}
	c.flush()
	return s, sent, nil
}

// claim keeps a place for a stream that is about to be opened.
func (cc *ClientConn) claim() {
	cc.c.mu.Lock()
	cc.claims++
	cc.c.mu.Unlock()
}

// load is how many streams are open or about to be.
func (cc *ClientConn) load() int {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return len(cc.c.streams) + cc.claims
}

// failure returns why the stream can't send any more.
func (s *Stream) failure() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.sendErr
}

// answerLocked releases the Connect that waits on s.
func (s *Stream) answerLocked() {
	if s.reply == nil {
		return
	}
	close(s.reply.ready)
	s.c.still.Broadcast()
	if s.reply.app != nil && s.reply.status != 200 {
		s.reply.app.wake()
	}
	s.reply = nil
}

func (cc *ClientConn) headers(f h2.Frame, fields []h2.HeaderField, bad error) error {
	c := cc.c
	c.mu.Lock()
	s := c.streams[f.StreamID]
	if s == nil {
		idle := c.idle(f.StreamID)
		c.mu.Unlock()
		if idle {
			return h2.ConnError{Code: h2.ProtocolError, Reason: "HEADERS on an idle stream"}
		}
		return nil // of a stream we reset
	}
	if s.answered {
		c.mu.Unlock()
		return c.trailers(s, f, bad)
	}
	status, header, ok := parseResponse(fields)
	switch {
	case bad != nil:
		c.mu.Unlock()
		return bad
	case !ok || status == 101 || status < 200 && f.EndStream():
		c.mu.Unlock()
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ProtocolError, Reason: "bad response"}
	case status < 200: // interim
		c.mu.Unlock()
		if !c.control.Spend() {
			return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "too many interim responses"}
		}
		return nil
	}
	s.answered = true
	wait := s.reply
	if wait != nil {
		wait.status, wait.header = status, header
		if status == 200 && wait.lent != nil {
			wait.lent.giveBack() // here, as nobody wakes up for the answer
		}
	}
	s.answerLocked()
	c.mu.Unlock()
	if wait != nil && wait.app != nil && status == 200 {
		s.attach(wait.app.sink)
	}
	if f.EndStream() {
		s.deliver(nil, true)
		c.remoteEnd(s)
	}
	return nil
}

func parseResponse(fields []h2.HeaderField) (status int, h Header, ok bool) {
	for _, f := range fields {
		switch {
		case f.Name == ":status":
			n, err := strconv.Atoi(f.Value)
			if err != nil || len(f.Value) != 3 || n < 100 {
				return 0, nil, false
			}
			status = n
		case f.Name[0] == ':':
			return 0, nil, false
		default:
			h = append(h, Field{f.Name, f.Value})
		}
	}
	return status, h, status != 0
}

func (cc *ClientConn) goneAway(last uint32) {
	c := cc.c
	c.goAway, c.goAwayN = true, last
	for id, s := range c.streams {
		if id > last {
			err := fmt.Errorf("%w: peer is going away", ErrNotSent)
			s.abortLocked(err)
			delete(c.streams, id)
			go s.endReceive(err) // takes rmu, which must not be taken under conn.mu
		}
	}
	cc.closed()
}

// closed runs with conn.mu held.
func (cc *ClientConn) closed() {
	c := cc.c
	if c.goAway && len(c.streams) == 0 && c.err == nil {
		go func() {
			c.mu.Lock()
			for c.writing && c.err == nil {
				c.turn.Wait()
			}
			c.turn.Signal()
			c.mu.Unlock()
			c.fail(errors.Join(ErrClosed, errDrained))
		}()
	}
	if len(c.streams) == 0 {
		cc.emptied = time.Now()
	}
}

// Done is closed when the connection ended.
func (cc *ClientConn) Done() <-chan struct{} { return cc.c.done }

// Close ends the connection and all its streams.
func (cc *ClientConn) Close() error {
	cc.c.fail(ErrClosed)
	<-cc.ended
	return nil
}

// usable returns whether new streams may be opened, and how many are open.
func (cc *ClientConn) usable(limit int) (ok bool, open int) {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	open = len(c.streams) + cc.claims
	limit = int(min(uint32(limit), c.peer.MaxConcurrentStreams))
	return c.err == nil && !c.goAway && !c.retired && c.lastID < 1<<31-2 && open < limit, open
}

// idleFor returns for how long the connection carried no stream.
func (cc *ClientConn) idleFor() time.Duration {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	if len(cc.c.streams) > 0 {
		return 0
	}
	return time.Since(cc.emptied)
}

// retire opens no more streams; the connection closes with its last one.
func (cc *ClientConn) retire() {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	cc.c.goAway = true
	cc.closed()
}
