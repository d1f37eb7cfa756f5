package hbone

import (
	"errors"
	"io"
	"net"
	"os"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// deliver takes data from the reader: it goes straight to where it is wanted (a socket, a waiting Read), or
// waits in the queue, which the stream's window bounds. It never blocks.
func (s *Stream) deliver(pieces [][]byte, end bool) {
	s.rmu.Lock()
	used, queued, dropped := 0, 0, 0
	switch {
	case s.recvErr != nil:
		used, pieces = size(pieces), nil
	case s.sink != nil && !s.draining && len(pieces) > 0:
		used = s.sink.push(pieces)
		pieces = advance(pieces, used)
	case s.waiting != nil && s.queue.Len() == 0 && len(pieces) > 0:
		for _, p := range pieces {
			used += copy(s.waiting[used:], p)
		}
		s.got, s.waiting = used, nil
		pieces = advance(pieces, used)
		s.readable.Broadcast()
	}
	wanted := len(pieces) > 0 && (s.sink == nil || s.sink.err == nil)
	over := wanted && s.c.pressure() == Cut
	switch {
	case over:
		used += size(pieces)
		s.recvErr, end = ErrOverBudget, false
		dropped = s.queue.Clear()
		s.readable.Broadcast()
	case wanted:
		for _, p := range pieces {
			s.queue.Add(p)
			queued += len(p)
		}
		s.readable.Broadcast()
		if s.sink != nil && !s.draining {
			s.draining = true
			go s.drainTo(s.sink)
		}
	default:
		used += size(pieces) // the sink broke: nobody wants it
	}
	if end {
		s.eof = true
		s.readable.Broadcast()
	}
	finished := s.finishedLocked()
	s.rmu.Unlock()
	if used > 0 || queued > 0 || dropped > 0 {
		s.account(queued, used, dropped)
	}
	if over {
		s.shed()
	}
	if finished != nil {
		finished()
	}
}

// shed resets a stream for which there is no memory. It never blocks.
func (s *Stream) shed() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s && c.err == nil {
		c.reserve(64)
		c.out = h2.AppendRSTStream(c.out, s.id, h2.EnhanceYourCalm)
		s.abortLocked(ErrOverBudget)
		c.removeLocked(s)
		c.flushAsync()
	}
}

// account books bytes that were queued, bytes that were consumed on arrival, and bytes consumed from the queue.
func (s *Stream) account(queued, passed, dequeued int) {
	c := s.c
	c.mu.Lock()
	if more := int64(queued - dequeued); more != 0 {
		c.buffered += more
		if c.budget != nil {
			c.budget.Hold(more)
		}
	}
	if n := int64(passed + dequeued); n > 0 {
		c.giveBackLocked(n)
		if incr := s.recv.Consume(n); !s.remoteEnded {
			c.windowUpdateLocked(s.id, incr)
		}
	}
	c.mu.Unlock()
}

// Stale tells whoever keeps a stream for later that it is of no use any more: the peer has ended or reset it, has sent something that
// nobody asked for, or is about to leave.
func (s *Stream) Stale() bool {
	s.rmu.Lock()
	stale := s.eof || s.recvErr != nil || s.queue.Len() > 0
	s.rmu.Unlock()
	if stale {
		return true
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.goAway || s.c.err != nil
}

// Read returns what arrived, waiting for it if need be; io.EOF after the peer's END_STREAM.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	s.rmu.Lock()
	for {
		if err := s.readErrLocked(); err != nil {
			s.rmu.Unlock()
			return 0, err
		}
		if s.queue.Len() > 0 {
			n := s.queue.Read(p)
			s.rmu.Unlock()
			s.account(0, 0, n)
			return n, nil
		}
		s.waiting, s.got = p, 0
		s.readable.Wait(&s.rmu)
		s.waiting = nil
		if s.got > 0 {
			n := s.got
			s.rmu.Unlock()
			return n, nil
		}
	}
}

func (s *Stream) readErrLocked() error {
	switch {
	case s.recvErr != nil:
		return s.recvErr
	case s.readExpired:
		return os.ErrDeadlineExceeded
	case s.eof && s.queue.Len() == 0:
		return io.EOF
	}
	return nil
}

// WriteTo writes all that arrives to w, a queued buffer at a time.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	var total int64
	for {
		s.rmu.Lock()
		for s.queue.Len() == 0 && s.readErrLocked() == nil {
			s.readable.Wait(&s.rmu)
		}
		if err := s.readErrLocked(); err != nil {
			s.rmu.Unlock()
			if err == io.EOF { //nolint:errorlint // our own, bare
				err = nil
			}
			return total, err
		}
		data, buffer := s.queue.Pop()
		s.rmu.Unlock()
		n, err := w.Write(data)
		total += int64(n)
		s.account(0, 0, len(data))
		netx.Pool.Put(buffer)
		if err != nil {
			return total, err
		}
	}
}

// endReceive fails the receiving direction unless all of it already arrived, or it was us who closed.
func (s *Stream) endReceive(err error) {
	s.rmu.Lock()
	if s.recvErr != nil || s.eof && !errors.Is(err, net.ErrClosed) {
		s.rmu.Unlock()
		return
	}
	s.recvErr = err
	dropped := s.queue.Clear()
	s.stopTimer(&s.readTimer)
	s.readable.Broadcast()
	finished := s.finishedLocked()
	s.rmu.Unlock()
	if dropped > 0 {
		s.account(0, 0, dropped)
	}
	if finished != nil {
		finished()
	}
}
