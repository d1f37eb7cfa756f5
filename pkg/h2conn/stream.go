package h2conn

import (
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// stream is what both ends of an exchange have in common: a body in either direction. Reading and writing may be two goroutines.
type stream struct {
	// immutable
	c  *conn
	id uint32

	expect int64 // what the peer's content-length still promises; -1: nothing. Of the connection's reader
	listed bool  // member of conn.wakes. Likewise

	// guarded by conn.mu
	send         h2.SendWindow
	recv         h2.RecvWindow
	sendable     sync.Cond
	sendErr      error
	localEnded   bool // END_STREAM or RST_STREAM queued
	remoteEnded  bool
	answered     bool // final response HEADERS sent (server) or received (client)
	tunnel       bool // a CONNECT or an upgrade was accepted
	lent         bool // a tunnel was made of it, which may outlive the exchange
	over         bool // its owner has parted with it; of clients
	writeExpired bool
	gone         chan struct{} // lazily made; closed when the stream was aborted
	aborted      bool
	queued       bool // member of conn.blocked
	next         *stream

	rmu         sync.Mutex // guards the rest
	readable    sync.Cond
	queue       netx.Queue
	waiting     []byte // buffer of a Read in progress, filled straight by the reader
	got         int    // how much of waiting was filled
	eof         bool   // END_STREAM received; the queue may still hold data
	toldEnd     bool   // Read returned io.EOF
	recvErr     error
	trailer     *httpmsg.Header
	readExpired bool
	replies     *replies // client: the heads that came
}

func (s *stream) init(c *conn, id uint32) {
	s.c, s.id, s.expect = c, id, -1
	s.send = h2.NewSendWindow(c.peer.InitialWindowSize)
	s.recv = h2.NewRecvWindow(c.opt.StreamWindow)
	s.sendable.L = &c.mu
	s.readable.L = &s.rmu
}

// abortLocked ends both directions: sending fails with err, reading too, unless all of it arrived before. Called with conn.mu held.
func (s *stream) abortLocked(err error) {
	complete := s.remoteEnded
	if s.sendErr == nil {
		s.sendErr = err
	}
	s.localEnded, s.remoteEnded, s.aborted = true, true, true
	s.sendable.Broadcast()
	if s.queued {
		s.c.blocked.remove(s)
		s.c.unblock()
	}
	if s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
	if !complete {
		s.failReceive(err)
	}
}

// failReceive makes reading fail once what arrived is read.
func (s *stream) failReceive(err error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.recvErr == nil {
		s.recvErr = err
	}
	s.wakeReader()
}

// endReceiveLocked drops what nobody will read any more. Called with conn.mu held.
func (s *stream) endReceiveLocked() {
	s.failReceive(net.ErrClosed)
	s.rmu.Lock()
	dropped := s.queue.Clear()
	s.rmu.Unlock()
	s.c.buffered -= int64(dropped)
	s.c.giveBackLocked(int64(dropped))
}

// Gone implements [httpmsg.ServerStream].
func (s *stream) Gone() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.gone == nil {
		gone := make(chan struct{})
		if s.aborted {
			close(gone)
			return gone
		}
		s.gone = gone
	}
	return s.gone
}

// closeWith ends what is left of the exchange with RST_STREAM. Reading what arrived ends, too. It is the owner's: it may wait for the
// connection.
func (s *stream) closeWith(code h2.ErrCode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.resetLocked(code) {
		s.c.flush()
	}
}

// cancelWith is closeWith for other goroutines, which must not wait. The stream stays its owner's.
func (s *stream) cancelWith(code h2.ErrCode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.resetLocked(code) {
		s.c.flushAsync()
	}
}

// resetLocked queues RST_STREAM, unless the exchange has ended, and reports whether it did.
func (s *stream) resetLocked(code h2.ErrCode) (queued bool) {
	c := s.c
	if queued = c.streams[s.id] == s; queued {
		c.reserve(64)
		c.out = h2.AppendRSTStream(c.out, s.id, code)
		s.abortLocked(net.ErrClosed)
		c.removeLocked(s, true)
	}
	s.endReceiveLocked()
	return queued
}

// Interrupt implements [httpmsg.ServerStream].
func (s *stream) Interrupt() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.readExpired = true
	s.readable.Broadcast()
}

// Trailer implements [httpmsg.Incoming].
func (s *stream) Trailer() *httpmsg.Header {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	return s.trailer
}

// Ended implements [httpmsg.Incoming].
func (s *stream) Ended() bool {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	// A trailer is not to be missed by who takes this for the end.
	return s.eof && s.queue.Len() == 0 && s.recvErr == nil && (s.trailer == nil || s.toldEnd)
}

// Buffered is how many bytes of the body can be read without waiting.
func (s *stream) Buffered() int {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	return s.queue.Len()
}

// count checks a piece of the body against the content-length.
func (s *stream) count(n int, end bool) error {
	if s.expect < 0 {
		return nil
	}
	if s.expect -= int64(n); s.expect < 0 || end && s.expect > 0 {
		return h2.StreamError{StreamID: s.id, Code: h2.ProtocolError, Reason: "body is not as long as its content-length"}
	}
	return nil
}

// sendableErr says why nothing can be sent. Called with conn.mu held.
func (s *stream) sendableErr() error {
	switch {
	case s.sendErr != nil:
		return s.sendErr
	case s.localEnded:
		return fmt.Errorf("stream %d: %w", s.id, net.ErrClosed)
	case s.writeExpired:
		return os.ErrDeadlineExceeded
	}
	return nil
}
