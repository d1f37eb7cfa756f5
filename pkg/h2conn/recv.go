package h2conn

import (
	"io"
	"os"
)

// deliver takes data from the connection's reader: it goes straight to where it is wanted, or waits in the queue, which the stream's
// window bounds. It never blocks.
func (s *stream) deliver(p []byte, end bool) {
	s.rmu.Lock()
	used := 0
	switch {
	case s.recvErr != nil:
		used, p = len(p), nil
	case s.waiting != nil && s.queue.Len() == 0 && len(p) > 0:
		used = copy(s.waiting, p)
		s.got, s.waiting = used, nil
		p = p[used:]
	}
	if len(p) > 0 {
		s.queue.Add(p)
	}
	if end {
		s.eof = true
	}
	s.rmu.Unlock()
	if used > 0 || len(p) > 0 || end {
		s.c.wakeSoon(s)
	}
	if used > 0 || len(p) > 0 {
		s.account(len(p), used, 0)
	}
}

// account books bytes that were queued, bytes that were consumed on arrival, and bytes consumed from the queue.
func (s *stream) account(queued, passed, dequeued int) {
	c := s.c
	c.mu.Lock()
	c.buffered += int64(queued - dequeued)
	if n := int64(passed + dequeued); n > 0 {
		c.giveBackLocked(n)
		if incr := s.recv.Consume(n); !s.remoteEnded {
			c.windowUpdateLocked(s.id, incr)
		}
	}
	c.mu.Unlock()
}

// Read returns what arrived, waiting for it if need be; io.EOF after, or together with, the last of it.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	for {
		if err := s.readErrLocked(); err != nil {
			s.rmu.Unlock()
			return 0, err
		}
		if s.queue.Len() > 0 {
			n := s.queue.Read(p)
			err := s.endLocked()
			s.rmu.Unlock()
			s.account(0, 0, n)
			return n, err
		}
		s.waiting, s.got = p, 0
		s.readable.Wait()
		s.waiting = nil
		if s.got > 0 {
			n, err := s.got, s.endLocked()
			s.rmu.Unlock()
			return n, err
		}
	}
}

func (s *stream) readErrLocked() error {
	switch {
	case s.recvErr != nil && s.queue.Len() == 0:
		return s.recvErr
	case s.readExpired:
		return os.ErrDeadlineExceeded
	}
	return s.endLocked()
}

func (s *stream) endLocked() error {
	if s.eof && s.queue.Len() == 0 {
		s.toldEnd = true
		return io.EOF
	}
	return nil
}
