package hbone

import (
	"net"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Stream is an HBONE tunnel: a net.Conn with half close. Reads and writes may run concurrently.
type Stream struct {
	// immutable
	c    *conn
	id   uint32
	life *netx.Life // server: the handler's context

	// guarded by conn.mu
	send         h2.SendWindow
	recv         h2.RecvWindow
	sendable     cond
	sendErr      error
	localEnded   bool // END_STREAM or RST_STREAM queued
	remoteEnded  bool
	answered     bool // response HEADERS sent (server) or received (client)
	writeExpired bool
	writeTimer   *time.Timer
	queued       bool // member of conn.blocked
	next         *Stream
	reply        *reply // client, until the response arrived

	reading sync.Mutex // serialises Read

	rmu         sync.Mutex // guards the rest; never taken while conn.mu is held
	readable    cond
	queue       netx.Queue
	waiting     []byte // buffer of a Read in progress, filled straight by the reader
	got         int    // how much of waiting was filled
	eof         bool   // END_STREAM received; the queue may still hold data
	recvErr     error
	readExpired bool
	readTimer   *time.Timer
	sink        *sink
	draining    bool // a goroutine writes the queue to sink
}

func newStream(c *conn, id uint32) *Stream {
	return &Stream{c: c, id: id, send: h2.NewSendWindow(c.peer.InitialWindowSize), recv: h2.NewRecvWindow(streamWindow)}
}

// LocalAddr returns the local address of the connection that carries the stream.
func (s *Stream) LocalAddr() net.Addr { return s.c.nc.LocalAddr() }

// RemoteAddr returns the address of the peer at the other end of the connection.
func (s *Stream) RemoteAddr() net.Addr { return s.c.nc.RemoteAddr() }

// abortLocked makes sending fail with err and wakes whoever waits to send. Called with conn.mu held.
func (s *Stream) abortLocked(err error) {
	if s.sendErr == nil {
		s.sendErr = err
	}
	s.localEnded, s.remoteEnded = true, true
	s.sendable.Broadcast()
	if s.queued {
		s.c.blocked.remove(s)
		s.c.unblock()
	}
	s.answerLocked()
	if s.life != nil {
		s.life.End(err)
	}
}

// CloseWrite ends the sending direction (END_STREAM); reading goes on.
func (s *Stream) CloseWrite() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.localEnded {
		return s.sendErr
	}
	s.endLocked()
	c.flush()
	return nil
}

// endLocked queues END_STREAM; the caller flushes.
func (s *Stream) endLocked() {
	s.c.reserve(64)
	s.c.out = h2.FrameHeader{Type: h2.FrameData, Flags: h2.FlagEndStream, StreamID: s.id}.Append(s.c.out)
	s.localEnded = true
	s.sendErr = net.ErrClosed
	s.c.retireLocked(s)
}

// Close ends the stream: what was written arrives, followed by the end; what the peer still sends is refused.
func (s *Stream) Close() error {
	s.close(h2.Cancel, true)
	return nil
}

// Reset aborts both directions (RST_STREAM with CONNECT_ERROR): the other end sees an error, as it would
// see a TCP reset.
func (s *Stream) Reset() { s.close(h2.ConnectError, false) }

func (s *Stream) close(code h2.ErrCode, graceful bool) {
	c := s.c
	c.mu.Lock()
	if c.streams[s.id] == s {
		if graceful && !s.localEnded {
			s.endLocked()
		}
		if !s.remoteEnded || !graceful {
			c.reserve(64)
			c.out = h2.AppendRSTStream(c.out, s.id, code)
		}
		s.abortLocked(net.ErrClosed)
		c.removeLocked(s)
		c.flush()
	}
	s.stopTimer(&s.writeTimer)
	c.mu.Unlock()
	s.endReceive(net.ErrClosed)
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline makes Read fail after t; zero means never.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.setDeadline(t, &s.rmu, &s.readTimer, &s.readExpired, &s.readable)
	return nil
}

// SetWriteDeadline makes Write fail after t; zero means never. It bounds the wait for the peer's window and
// for other streams, not a single write to the connection.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.setDeadline(t, &s.c.mu, &s.writeTimer, &s.writeExpired, &s.sendable)
	return nil
}

// setDeadline arms one of the deadlines; called with mu, which guards timer and expired, held.
func (s *Stream) setDeadline(t time.Time, mu *sync.Mutex, timer **time.Timer, expired *bool, wake *cond) {
	s.stopTimer(timer)
	*expired = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		*expired = true
		s.wakeExpired(wake)
		return
	}
	var mine *time.Timer
	mine = time.AfterFunc(wait, func() {
		mu.Lock()
		defer mu.Unlock()
		if *timer == mine { // not replaced meanwhile
			*expired = true
			s.wakeExpired(wake)
		}
	})
	*timer = mine
}

func (s *Stream) wakeExpired(wake *cond) {
	wake.Broadcast()
	if wake == &s.sendable {
		s.c.turn.Broadcast()
	}
}

func (*Stream) stopTimer(timer **time.Timer) {
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
}
