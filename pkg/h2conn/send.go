package h2conn

import (
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// dataSize bounds the payload of our DATA frames: the least that every peer takes, which is also a full TLS record.
const dataSize = 16<<10 - h2.FrameHeaderLen

// Write implements [httpmsg.Outgoing]. It returns when all of p is handed to the connection or queued.
func (s *stream) Write(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.writeLocked(p)
}

// writeLocked is Write with conn.mu held.
func (s *stream) writeLocked(p []byte) (int, error) {
	c := s.c
	sent := 0
	for len(p) > 0 {
		n, err := s.windowLocked(min(len(p), dataSize))
		if err == nil {
			err = s.turnLocked(n)
		}
		if err != nil {
			return sent, err
		}
		c.dataLocked(s.id, p[:n])
		p = p[n:]
		sent += n
		if len(c.out) >= combineLimit-dataSize {
			c.flush()
		}
	}
	if len(c.out) >= holdLimit {
		c.flush()
	}
	return sent, nil
}

// Flush implements [httpmsg.Outgoing].
func (s *stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.flush()
	if !s.localEnded {
		return s.sendErr
	}
	return nil
}

// finish ends the message. Called with conn.mu held.
func (s *stream) finishLocked(trailer *httpmsg.Header) error {
	if err := s.sendableErr(); err != nil {
		return err
	}
	c := s.c
	if trailer != nil && trailer.Len() > 0 {
		start := c.openBlock(fieldsSize(trailer))
		c.out = appendFields(c.out, trailer)
		c.closeBlock(start, s.id, true)
	} else {
		c.endStreamLocked(s.id)
	}
	s.localEndLocked()
	c.flushSoon()
	return nil
}

// localEndLocked notes that END_STREAM is queued.
func (s *stream) localEndLocked() {
	s.localEnded = true
	s.c.completed.Add(1)
	s.c.retireLocked(s)
}

// windowLocked waits until at least one byte may be sent and takes up to want from both windows. Streams get their share of the
// connection's window in the order in which they ran into it.
func (s *stream) windowLocked(want int) (int, error) {
	c := s.c
	for {
		if err := s.sendableErr(); err != nil {
			s.leaveBlocked()
			return 0, err
		}
		mine, shared := s.send.Available(), c.send.Available()
		full := shared == 0 || c.blocked.head != nil && c.blocked.head != s
		if mine > 0 && !full {
			n := min(int64(want), mine, shared)
			s.send.Take(n)
			c.send.Take(n)
			s.leaveBlocked()
			return int(n), nil
		}
		if len(c.out) > 0 && !c.writing {
			c.flush() // the peer widens the window only after it got what is held back
			continue
		}
		if mine == 0 {
			s.leaveBlocked()
		} else {
			c.blocked.push(s)
		}
		s.sendable.Wait()
	}
}

func (s *stream) leaveBlocked() {
	if s.queued {
		s.c.blocked.remove(s)
	}
	s.c.unblock()
}

// turnLocked waits until n bytes may be queued. On error it gives the window back.
func (s *stream) turnLocked(n int) error {
	c := s.c
	for {
		err := s.sendableErr()
		if err == nil && (!c.writing || len(c.out)+h2.FrameHeaderLen+n <= combineLimit) {
			return nil
		}
		if err != nil {
			s.send.Add(int64(n))
			c.send.Add(int64(n))
			c.unblock()
			return err
		}
		c.turn.Wait()
	}
}

// unblock wakes the first stream that waits for the connection's window. Called with mu held.
func (c *conn) unblock() {
	if c.blocked.head != nil && c.send.Available() > 0 {
		c.blocked.head.sendable.Signal()
	}
}

// streamList is a FIFO of streams linked through their next field; guarded by conn.mu.
type streamList struct{ head, tail *stream }

func (l *streamList) push(s *stream) {
	if s.queued {
		return
	}
	s.queued, s.next = true, nil
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.next = s
	}
	l.tail = s
}

func (l *streamList) remove(s *stream) {
	if !s.queued {
		return
	}
	var prev *stream
	for at := l.head; at != nil; prev, at = at, at.next {
		if at != s {
			continue
		}
		if prev == nil {
			l.head = s.next
		} else {
			prev.next = s.next
		}
		if l.tail == s {
			l.tail = prev
		}
		break
	}
	s.queued, s.next = false, nil
}

// closeWrite ends the sending direction of a tunnel.
func (s *stream) closeWrite() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.localEnded {
		if s.sendErr != nil {
			return s.sendErr
		}
		return net.ErrClosed
	}
	return s.finishLocked(nil)
}
