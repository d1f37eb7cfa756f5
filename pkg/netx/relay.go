package netx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Stream is a connection whose sending side can be closed on its own.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Counters are the bytes a relay moved so far; safe to read while it runs.
type Counters struct {
	Sent     Counter // downstream → upstream
	Received Counter // upstream → downstream
}

// Counter counts what went one way. Safe for concurrent use.
type Counter struct{ bytes, steps atomic.Uint64 }

// Add counts one step: n bytes that were read and written at once.
func (c *Counter) Add(n uint64) {
	c.bytes.Add(n)
	c.steps.Add(1)
}

// Store begins at n bytes, which took no steps here.
func (c *Counter) Store(n uint64) { c.bytes.Store(n) }

// Load is the number of bytes.
func (c *Counter) Load() uint64 { return c.bytes.Load() }

// Steps is in how many steps they went: what a byte costs depends on how many go at once.
func (c *Counter) Steps() uint64 { return c.steps.Load() }

// CopyError says which end of a one-way copy failed.
type CopyError struct {
	Write bool // the destination failed, else the source
	Err   error
}

// Error implements error.
func (e *CopyError) Error() string {
	if e.Write {
		return "write: " + e.Err.Error()
	}
	return "read: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *CopyError) Unwrap() error { return e.Err }

// RelayError says which side of a relay failed first.
type RelayError struct {
	Upstream bool   // else downstream
	Op       string // read or write
	Err      error
}

// Error implements error.
func (e *RelayError) Error() string {
	side := "downstream"
	if e.Upstream {
		side = "upstream"
	}
	return fmt.Sprintf("%s %s: %v", side, e.Op, e.Err)
}

// Unwrap returns the cause.
func (e *RelayError) Unwrap() error { return e.Err }

// forwarder is a Stream that writes what it receives to a socket without a goroutine (package hbone).
type forwarder interface {
	ForwardTo(dst *net.TCPConn, count *Counter, done func(error))
}

// copier is a Stream that takes all a socket yields without an intermediate copy (package hbone). It parks on the lane when it is
// interrupted.
type copier interface {
	CopyFrom(src *net.TCPConn, count *Counter, lane *Lane) error
}

// Relay copies both ways until both directions ended, passing half-closes on, and closes both streams. The
// first failure aborts both, so that each end sees a reset where the other had one; it is returned as a
// [*RelayError]. When ctx ends, both are aborted and its cause is returned. c may be nil.
//
// Two TCP sockets are spliced in the kernel; neither may have a BPF sockmap attached.
func Relay(ctx context.Context, downstream, upstream Stream, c *Counters) error {
	return newRelay(ctx, downstream, upstream, c, nil).run()
}

// RelayThrough is Relay with a gate, by which it can be stopped; then it returns [ErrMoved] and closes nothing. It begins where the
// gate says.
func RelayThrough(ctx context.Context, downstream, upstream Stream, c *Counters, gate *Gate) error {
	return newRelay(ctx, downstream, upstream, c, gate).run()
}

func newRelay(ctx context.Context, downstream, upstream Stream, c *Counters, gate *Gate) *relay {
	if c == nil {
		c = &Counters{}
	}
	r := &relay{downstream: downstream, upstream: upstream, bytes: c, gate: gate}
	r.sent, r.received = gate.lanes()
	r.stop = afterFunc(ctx, func() { r.fail(Cause(ctx)) })
	return r
}

// run relays. Most of its life it waits in copy for one of the ends to speak, so the functions on the way there keep little on the stack.
func (r *relay) run() error {
	r.begin()
	r.ended(r.fromUpstream, r.copy(r.fromUpstream))
	return r.finish()
}

// begin starts one direction in the background: what a stream can do without a goroutine. The other is left.
func (r *relay) begin() {
	if fwd, tcp, ok := forwardable(r.upstream, r.downstream); ok {
		r.gate.start(1, r.upstream, r.downstream)
		fwd.ForwardTo(tcp, &r.bytes.Received, func(err error) { r.forwarded(true, tcp, err, r.received) })
		return
	}
	if fwd, tcp, ok := forwardable(r.downstream, r.upstream); ok {
		r.fromUpstream = true
		r.gate.start(1, r.downstream, r.upstream)
		fwd.ForwardTo(tcp, &r.bytes.Sent, func(err error) { r.forwarded(false, tcp, err, r.sent) })
		return
	}
	r.gate.start(2, nil, r.downstream, r.upstream)
	go func() {
		r.ended(true, r.copy(true))
		r.backEnded()
	}()
}

// copy is one direction.
func (r *relay) copy(fromUpstream bool) error {
	if fromUpstream {
		return oneWay(r.downstream, r.upstream, &r.bytes.Received, r.received)
	}
	return oneWay(r.upstream, r.downstream, &r.bytes.Sent, r.sent)
}

// finish waits for the direction in the background, and returns the outcome.
func (r *relay) finish() error {
	select {
	case <-r.background():
	case <-r.gate.leaving():
	}
	r.stop()
	if !r.gate.settle() {
		return ErrMoved
	}
	r.downstream.Close()
	r.upstream.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func forwardable(from, to Stream) (forwarder, *net.TCPConn, bool) {
	fwd, ok := from.(forwarder)
	tcp, isTCP := to.(*net.TCPConn)
	return fwd, tcp, ok && isTCP
}

type relay struct {
	downstream, upstream Stream
	bytes                *Counters
	gate                 *Gate // may be nil
	sent, received       *Lane
	stop                 func() bool // ends the watch over the context
	fromUpstream         bool        // where the direction that is not in the background reads; settled by begin
	bed                  *bed        // of one that may sleep, else nil

	mu   sync.Mutex    // guards the rest
	err  error         // first failure
	over bool          // the background direction has ended
	back chan struct{} // closed when it has; nil until finish waits, which most relays are far from
}

// backEnded is the end of the background direction.
func (r *relay) backEnded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over = true; r.back != nil {
		close(r.back)
	}
}

// background is closed when the background direction has ended.
func (r *relay) background() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back = make(chan struct{})
	if r.over {
		close(r.back)
	}
	return r.back
}

// forwarded is the end of the direction in the background, to tcp.
func (r *relay) forwarded(fromUpstream bool, tcp *net.TCPConn, err error, lane *Lane) {
	if err = half(tcp, err); err == nil {
		lane.leave(true, false)
	}
	r.ended(fromUpstream, err)
	r.backEnded()
}

// ended notes the end of a direction; fromUpstream says where it read.
func (r *relay) ended(fromUpstream bool, err error) {
	if err == nil || errors.Is(err, ErrMoved) {
		return
	}
	out := &RelayError{Upstream: fromUpstream, Op: "read", Err: err}
	var ce *CopyError
	if errors.As(err, &ce) {
		out.Err = ce.Err
		if ce.Write {
			out.Op, out.Upstream = "write", !fromUpstream
		}
	}
	r.fail(out)
}

// fail records the first failure and aborts both sides, which ends both directions.
func (r *relay) fail(err error) {
	r.mu.Lock()
	first := r.err == nil
	if first {
		r.err = err
	}
	r.mu.Unlock()
	if first {
		r.gate.Abandon()
		// Not here: a forwarder may call from the goroutine that reads the tunnel.
		go func() {
			if r.gate.settle() {
				r.gate.wake() // to see it end
				Abort(r.downstream)
				Abort(r.upstream)
			}
		}()
	}
}

// Abort closes c such that the peer sees a reset, if c knows how to.
func Abort(c net.Conn) {
	switch t := c.(type) {
	case interface{ Reset() }:
		t.Reset()
	case interface{ SetLinger(int) error }:
		t.SetLinger(0)
	}
	c.Close()
}

// half passes the end of a direction on to dst, if it was an orderly one.
func half(dst Stream, err error) error {
	if err != nil {
		return err
	}
	if tcp, ok := dst.(*net.TCPConn); ok {
		err = CloseWriteNow(tcp)
	} else {
		err = dst.CloseWrite()
	}
	if err != nil {
		return &CopyError{Write: true, Err: err}
	}
	return nil
}

// oneWay copies from src until its end and half-closes dst then.
func oneWay(dst, src Stream, count *Counter, lane *Lane) error {
	if lane.ended() {
		lane.leave(true, true)
		return nil
	}
	var err error
	srcTCP, fromTCP := src.(*net.TCPConn)
	dstTCP, toTCP := dst.(*net.TCPConn)
	into, direct := dst.(copier)
	switch {
	case fromTCP && direct:
		err = into.CopyFrom(srcTCP, count, lane)
	case fromTCP && toTCP:
		err = splice(dstTCP, srcTCP, count, lane)
	default:
		err = pump(dst, src, count)
	}
	if errors.Is(err, ErrMoved) || errors.Is(err, errTired) {
		return err
	}
	err = half(dst, err)
	lane.leave(err == nil, true)
	return err
}

// pump copies through a buffer that grows with the flow. It can't wait for src without one, so it falls back
// to a small one when little comes.
func pump(dst io.Writer, src io.Reader, count *Counter) error {
	buf := Pool.Get(SmallBuffer)
	defer func() { Pool.Put(buf) }()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return &CopyError{Write: true, Err: werr}
			}
			count.Add(uint64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &CopyError{Err: err}
		}
		if want := nextSize(len(buf), n); want != len(buf) {
			Pool.Put(buf)
			buf = Pool.Get(want)
		}
	}
}

func nextSize(size, n int) int {
	switch {
	case n == size && size == SmallBuffer:
		return MediumBuffer
	case n == size:
		return LargeBuffer
	case n <= SmallBuffer/2:
		return SmallBuffer
	}
	return size
}
