package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
)

const (
	// inlineBody is up to which length a body is read on the handler's own goroutine.
	inlineBody = 16 << 10
	// lingerBody is how long the rest of a body that nobody wants any more is read, so that the client sees the response.
	lingerBody = time.Second
)

// requestBody moves the body of a request to the attempt that is under way, and keeps what a further attempt would need.
//
// One goroutine, the pump, reads from the client and writes to the attempt; it lives until the body ends. A small body is moved
// by the handler itself.
type requestBody struct {
	x        *exchange
	received atomic.Uint64

	mu      sync.Mutex // guards the rest
	changed sync.Cond
	sink    *upstream.Stream // where the pump writes; nil between attempts
	writing bool             // the pump uses sink without mu
	keep    bool             // what is read is kept
	kept    []byte
	limit   int
	started bool
	pumping bool
	ended   bool // all was read
	failed  bool // the client went away
	stopped bool // nobody wants more
	once    bool // what is kept is for one attempt only
	forward bool // it is known how the body is to be moved: see prepare
	trailer *httpmsg.Header
	doneAt  time.Time
	mirrors []*mirror
}

// reset makes the body ready for another request. The pump is not running.
func (b *requestBody) reset() {
	b.received.Store(0)
	kept := b.kept[:0]
	if cap(kept) > inlineBody {
		kept = nil
	}
	b.sink, b.writing, b.keep, b.kept, b.limit = nil, false, false, kept, 0
	b.started, b.pumping, b.ended, b.failed, b.stopped, b.forward, b.once = false, false, false, false, false, false, false
	b.trailer, b.doneAt, b.mirrors = nil, time.Time{}, nil
}

// prepare tells how the body is to be moved; it is called once, before the first attempt.
func (b *requestBody) prepare(keep bool, limit int, mirrors []*mirror) {
	if b.started {
		b.prepareGathered(keep, limit, mirrors)
		return
	}
	b.keep, b.limit, b.mirrors, b.forward = keep, limit, mirrors, true
	if b.x.s.Ended() {
		b.ended, b.started = true, true
		b.done()
	}
}

// none is whether the request has no body.
func (b *requestBody) none() bool { return b.ended && b.received.Load() == 0 && b.trailer == nil }

// empty is none, while the pump may be running.
func (b *requestBody) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.none()
}

// complete is whether all of the body was received.
func (b *requestBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended
}

// since is how long ago all of the body was received; 0 when it was not yet.
func (b *requestBody) since(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		return 0
	}
	return now.Sub(b.doneAt)
}

// settled is whether no goroutine but the handler's uses the request.
func (b *requestBody) settled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.pumping
}

func (b *requestBody) doneAfter() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.doneAt.Sub(b.x.record.Start)
}

// replayable is whether another attempt can be made: everything that was read is still here.
func (b *requestBody) replayable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.failed && (b.none() || !b.started || b.keep)
}

// done notes that the request is complete, from when on its timeouts count. Called with mu held, or before anything runs.
func (b *requestBody) done() {
	b.doneAt = b.x.srv.deps.Clock()
	if b.x.binding.chain.HTTP.RequestTimeout > 0 {
		b.x.guard.set(deadlineRequest, time.Time{})
	}
	if !b.forward {
		return // prepare does the rest
	}
	b.x.armTimeouts(b.doneAt, b.sink != nil)
	for _, m := range b.mirrors {
		m.finish(b.trailer)
	}
}

// attach sends the body to an attempt's stream: what is kept at once, the rest as it comes. Errors of writing are the stream's
// own affair: its response tells.
func (b *requestBody) attach(to *upstream.Stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.started {
		b.started = true
		b.sink = to
		length := b.x.head.ContentLength
		if length > 0 && length <= inlineBody && !b.x.head.Expects {
			b.mu.Unlock()
			b.pumpHere(int(length))
			b.mu.Lock()
			return
		}
		b.pumping = true
		b.x.s.Gone() // from now on reads are another goroutine's
		go b.pump(true)
		return
	}
	for sent := 0; sent < len(b.kept); {
		chunk := b.kept[sent:]
		b.mu.Unlock()
		_, err := to.Write(chunk)
		b.mu.Lock()
		if err != nil {
			return
		}
		sent += len(chunk)
	}
	if b.once {
		b.once, b.keep, b.kept = false, false, nil
	}
	if !b.ended {
		b.sink = to
		b.changed.Broadcast()
		return
	}
	trailer := b.trailer
	b.mu.Unlock()
	_ = to.Finish(trailer)
	b.mu.Lock()
}

// detach takes the attempt's stream away; abort ends what blocks in it.
func (b *requestBody) detach(abort func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sink = nil
	if b.writing {
		b.mu.Unlock()
		abort()
		b.mu.Lock()
	}
	for b.writing {
		b.changed.Wait()
	}
}

// pumpHere moves a small body on the handler's own goroutine. What is not there yet may never come.
func (b *requestBody) pumpHere(length int) {
	here := b.x.s.Buffered() >= length
	if !here {
		b.x.guard.waitFor(waitsBody)
	}
	b.pump(false)
	if !here {
		b.x.guard.waitFor(waitsNot)
	}
}

// pump reads the body to its end.
func (b *requestBody) pump(alone bool) {
	buf := netx.Pool.Get(netx.MediumBuffer)
	for {
		n, err := b.x.s.Read(buf)
		if n > 0 {
			b.received.Add(uint64(n))
			b.x.guard.touch()
		}
		b.mu.Lock()
		if n > 0 {
			b.pass(buf[:n])
		}
		if err != nil {
			b.close(err)
			break
		}
		for b.sink == nil && b.keep && len(b.kept) >= b.limit && !b.stopped {
			b.changed.Wait() // for the next attempt
		}
		b.mu.Unlock()
	}
	if alone {
		b.pumping = false
		b.changed.Broadcast()
	}
	b.mu.Unlock()
	netx.Pool.Put(buf)
}

// pass gives a piece to all who want it. Called with mu held, which it gives up meanwhile.
func (b *requestBody) pass(p []byte) {
	if b.x.req.GRPC {
		b.x.requests.add(p)
	}
	if b.keep {
		if len(b.kept)+len(p) > b.limit && b.sink != nil {
			b.keep, b.kept = false, nil // too much for another attempt
		} else {
			b.kept = append(b.kept, p...)
		}
	}
	for _, m := range b.mirrors {
		m.add(p)
	}
	to := b.sink
	if to == nil {
		b.changed.Broadcast() // see gather
		return
	}
	b.writing = true
	b.mu.Unlock()
	_, err := to.Write(p)
	if err == nil && b.x.s.Buffered() == 0 && !b.x.s.Ended() {
		err = to.Flush()
	}
	b.mu.Lock()
	b.writing = false
	if err != nil && b.sink == to {
		b.sink = nil
	}
	b.changed.Broadcast()
}

// close ends the body, for good or not. Called with mu held, which it gives up meanwhile.
func (b *requestBody) close(err error) {
	if !errors.Is(err, io.EOF) {
		b.failed = true
		b.sink = nil
		for _, m := range b.mirrors {
			m.fail()
		}
		b.x.guard.abort(causeGone)
		return
	}
	b.ended = true
	b.trailer = b.x.s.Trailer()
	b.done()
	to := b.sink
	if to == nil {
		return
	}
	b.writing = true
	b.mu.Unlock()
	_ = to.Finish(b.trailer) // the response tells
	b.mu.Lock()
	b.writing = false
	b.changed.Broadcast()
}

// finish waits for the pump when the exchange is over. A client that goes on sending has a moment; HTTP/2 can tell it to stop.
func (b *requestBody) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.sink, b.keep = nil, false
	b.changed.Broadcast()
	if !b.pumping {
		return
	}
	linger := lingerBody
	if b.x.head.Version == httpmsg.HTTP2 || !b.x.responded {
		linger = 0
	}
	s, over := b.x.s, false // over is guarded by mu: a timer that comes too late finds another exchange, or another stream
	timer := time.AfterFunc(linger, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !over {
			s.Reset(codeNo)
		}
	})
	for b.pumping {
		b.changed.Wait()
	}
	over = true
	timer.Stop()
}
