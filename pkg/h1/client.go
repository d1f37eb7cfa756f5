package h1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// maxInterim bounds the interim responses to one request.
const maxInterim = 64

// client is the client's end of a connection, and the one request that it carries.
type client struct {
	// immutable
	nc   net.Conn
	cfg  ClientConfig
	done chan struct{}

	// of the goroutine that reads
	in       input
	parser   parser
	resp     httpmsg.Head
	body     body
	watch    watch
	stale    staleness
	method   string // of the request
	upgrade  bool   // it asks for another protocol
	answered bool
	tunnel   bool
	reusable bool

	wmu sync.Mutex // guards out; held while nc is written
	out output

	mu   sync.Mutex // guards the rest
	busy bool
	err  error // why no more requests are taken
}

// NewClient makes a connection for requests, one at a time, out of conn, which it owns from now on. A request's stream is the same
// object each time: it must not be used after Close.
func NewClient(conn net.Conn, cfg ClientConfig) httpmsg.ClientConn {
	cfg.defaults()
	c := &client{nc: conn, cfg: cfg, done: make(chan struct{}), out: newOutput(conn)}
	c.in.nc = conn
	c.parser.maxFields = cfg.MaxHeaders
	c.body.in, c.body.maxFields, c.body.maxBytes = &c.in, cfg.MaxHeaders, cfg.MaxHeaderBytes
	c.watch.in, c.watch.delay = &c.in, watchDelay
	c.watch.lost = func(n int, err error) {
		if n > 0 {
			err = bad("data that answers no request")
		}
		c.fail(err)
	}
	c.stale.init(conn)
	c.watch.arm()
	return &conn1{c}
}

// conn1 is the connection as its user sees it; client is the request.
type conn1 struct{ c *client }

// Open implements [httpmsg.ClientConn].
func (k *conn1) Open(_ context.Context, h *httpmsg.Head, end bool) (httpmsg.ClientStream, error) {
	c := k.c
	c.mu.Lock()
	switch {
	case c.err != nil:
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w: %w", httpmsg.ErrNotSent, errClosing, c.err)
	case c.busy:
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", httpmsg.ErrNotSent, errBusy)
	}
	c.busy = true
	c.mu.Unlock()
	c.watch.stop()
	err := c.stale.check()
	if err == nil {
		err = c.open(h, end)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%w: %w", httpmsg.ErrNotSent, err)
	}
	return c, nil
}

func (c *client) open(h *httpmsg.Head, end bool) error {
	c.method, c.upgrade = internMethod(h.Method), h.Upgrade != ""
	c.answered, c.tunnel, c.reusable = false, false, false
	c.body.reset(bodyNone, 0)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out.reserve(1 << 10)
	b, kind, length, err := appendRequest(c.out.buf, h, end)
	if err != nil {
		c.out.drop()
		return err
	}
	c.out.buf = b
	c.out.begin(kind, length, false)
	if end || c.upgrade || c.method == "CONNECT" {
		return c.out.finish(nil)
	}
	return nil
}

// internMethod keeps no memory of the caller's alive.
func internMethod(m string) string {
	switch m {
	case "HEAD":
		return "HEAD"
	case "CONNECT":
		return "CONNECT"
	}
	return "" // of no consequence
}

// Free implements [httpmsg.ClientConn].
func (k *conn1) Free() int {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if k.c.busy || k.c.err != nil {
		return 0
	}
	return 1
}

// Active implements [httpmsg.ClientConn].
func (k *conn1) Active() int {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if k.c.busy {
		return 1
	}
	return 0
}

// Done implements [httpmsg.ClientConn].
func (k *conn1) Done() <-chan struct{} { return k.c.done }

// Close implements [httpmsg.ClientConn].
func (k *conn1) Close() error {
	k.c.fail(net.ErrClosed)
	k.c.watch.stop()
	return nil
}

// fail ends the connection.
func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
		c.nc.Close()
	}
}

// Response implements [httpmsg.ClientStream].
func (c *client) Response(ctx context.Context, inform func(*httpmsg.Head)) (*httpmsg.Head, error) {
	if c.answered {
		return &c.resp, nil
	}
	if c.wmu.TryLock() { // else somebody is writing, and need not be waited for
		_ = c.out.flush() // the server may have answered before it stopped reading
		c.wmu.Unlock()
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { c.nc.SetReadDeadline(past()) })
		err := c.await(inform)
		if !stop() {
			err = context.Cause(ctx) // and the deadline stays: nothing more can be read
		}
		return c.result(err)
	}
	return c.result(c.await(inform))
}

func (c *client) result(err error) (*httpmsg.Head, error) {
	if err != nil {
		c.reusable = false
		return nil, fmt.Errorf("read response from %s: %w", c.nc.RemoteAddr(), err)
	}
	c.answered = true
	return &c.resp, nil
}

// await reads heads up to the final one.
func (c *client) await(inform func(*httpmsg.Head)) error {
	for range maxInterim {
		c.in.restart()
		block, err := c.in.head(c.cfg.MaxHeaderBytes)
		if err != nil {
			return c.cut(err)
		}
		if err := c.parser.response(block, &c.resp); err != nil {
			return err
		}
		if c.resp.Status >= 200 || c.resp.Status == 101 {
			return c.begin()
		}
		if inform != nil {
			inform(&c.resp)
		}
	}
	return bad("too many interim responses")
}

// cut names the ways in which a connection ends before its time.
func (c *client) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: connection closed: %w", httpmsg.ErrReset, io.ErrUnexpectedEOF)
	}
	return aborted(err)
}

// begin prepares the body of the final response.
func (c *client) begin() error {
	p, h := &c.parser, &c.resp
	c.reusable = p.persists(h.Version)
	kind := bodyLength
	switch {
	case h.Status == 101 && !c.upgrade:
		return bad("upgrade that nobody asked for")
	case h.Status == 101, c.method == "CONNECT" && h.Status < 300:
		c.tunnel, c.reusable = true, false
		kind = bodyNone
	case !hasBody(c.method, h.Status):
		kind = bodyNone
	case p.chunked:
		kind = bodyChunked
	case p.length < 0:
		kind, c.reusable = bodyClose, false
	}
	c.body.reset(kind, p.length)
	return nil
}

// Read implements [httpmsg.ClientStream].
func (c *client) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if err != nil && !c.body.Ended() {
		err = fmt.Errorf("read response body from %s: %w", c.nc.RemoteAddr(), c.cut(err))
	}
	return n, err
}

// Trailer implements [httpmsg.ClientStream].
func (c *client) Trailer() *httpmsg.Header { return c.body.Trailer() }

// Ended implements [httpmsg.ClientStream].
func (c *client) Ended() bool { return c.answered && c.body.Ended() }

// Buffered is how many bytes of the body can be read without waiting.
func (c *client) Buffered() int { return c.body.Buffered() }

// Write implements [httpmsg.ClientStream].
func (c *client) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	n, err := c.out.body(p)
	if c.out.err != nil {
		err = fmt.Errorf("write request to %s: %w", c.nc.RemoteAddr(), aborted(err))
	}
	return n, err
}

// Flush implements [httpmsg.ClientStream].
func (c *client) Flush() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.out.flush()
}

// Finish implements [httpmsg.ClientStream].
func (c *client) Finish(trailer *httpmsg.Header) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.out.done && (c.upgrade || c.method == "CONNECT") {
		return c.out.err // it has no body
	}
	return c.out.finish(trailer)
}

// Tunnel implements [httpmsg.ClientStream].
func (c *client) Tunnel() (httpmsg.Stream, error) {
	if !c.answered || !c.tunnel {
		return nil, errNoTunnel
	}
	c.tunnel = false
	return &tunnel{Conn: c.nc, in: &c.in}, nil
}

// Cancel implements [httpmsg.ClientStream]: it ends the connection.
func (c *client) Cancel() { c.fail(net.ErrClosed) }

// Close implements [httpmsg.ClientStream]. The connection stays if both messages are whole.
func (c *client) Close() {
	c.mu.Lock()
	if !c.busy {
		c.mu.Unlock()
		return
	}
	again := c.err == nil && c.complete()
	c.mu.Unlock()
	if !again {
		c.fail(errClosing)
	}
	if again {
		c.in.restart()
		c.watch.arm()
	}
	c.mu.Lock()
	c.busy = false
	c.mu.Unlock()
}

// complete is whether the exchange ended in a way that another may follow.
func (c *client) complete() bool {
	if !c.wmu.TryLock() {
		return false
	}
	defer c.wmu.Unlock()
	if !c.answered || !c.reusable || !c.out.done || c.out.err != nil || len(c.out.buf) > 0 {
		return false
	}
	if !c.body.Ended() && c.body.kind == bodyLength && c.body.left <= int64(c.in.w-c.in.r) {
		c.in.r += int(c.body.left) // nobody wanted it, but it is here
		return c.in.r == c.in.w
	}
	return c.body.Ended() && c.in.r == c.in.w
}
