package hbone

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// sink is a TCP socket to which a stream forwards what it receives. Guarded by Stream.rmu, except that a
// draining goroutine writes to dst without it.
type sink struct {
	dst   *net.TCPConn
	raw   syscall.RawConn
	count *netx.Counter
	done  func(error)
	wake  func() // called instead of done, once, while there is no done

	try    func(fd uintptr) bool // push's callback, made once
	pieces [][]byte
	n      int
	err    error
	hold   bool // nothing is written to dst
}

// ForwardTo writes all that the stream receives to dst, which it does not close; the bytes are added to count. It returns at once:
// the connection's reader writes as long as dst takes it, a goroutine exists only while dst lags. done is called once, from any goroutine, and must not block: nil after the end, else a
// [*netx.CopyError]. The stream must not be read otherwise.
func (s *Stream) ForwardTo(dst *net.TCPConn, count *netx.Counter, done func(error)) {
	raw, err := dst.SyscallConn()
	if err != nil {
		done(&netx.CopyError{Write: true, Err: err})
		return
	}
	s.rmu.Lock()
	passed := 0
	if s.sink == nil {
		s.sink = newSink(dst, raw, count)
		passed = s.forwardQueueLocked()
	} // else it forwards there since the peer has accepted
	s.sink.done = done
	finished := s.finishedLocked()
	s.rmu.Unlock()
	if passed > 0 {
		s.account(0, 0, passed)
	}
	if finished != nil {
		finished()
	}
}

func newSink(dst *net.TCPConn, raw syscall.RawConn, count *netx.Counter) *sink {
	k := &sink{dst: dst, raw: raw, count: count}
	k.try = k.write
	return k
}

// forwardQueueLocked passes on what came before there was a sink, and returns how many bytes left the queue.
func (s *Stream) forwardQueueLocked() int {
	k := s.sink
	passed := s.queue.Drain(k.pushOne)
	switch {
	case k.err != nil:
		passed += s.queue.Clear()
	case s.queue.Len() > 0:
		s.draining = true
		go s.drainTo(k)
	}
	return passed
}

// push writes as much of the pieces as the socket takes now.
func (k *sink) push(pieces [][]byte) int {
	k.pieces, k.n = pieces, 0
	if err := k.raw.Write(k.try); err != nil && k.err == nil {
		k.err = err
	}
	k.pieces = nil
	k.count.Add(uint64(k.n))
	return k.n
}

func (k *sink) pushOne(p []byte) int { return k.push([][]byte{p}) }

// write is called once per push with the socket; it never asks to wait.
func (k *sink) write(fd uintptr) bool {
	var errno syscall.Errno
	if k.n, errno = netx.WritevNow(fd, k.pieces); errno != 0 && errno != syscall.EAGAIN {
		k.err = os.NewSyscallError("write", errno)
	}
	return true
}

// drainTo writes the queue to a socket that lags; ends when they are level.
func (s *Stream) drainTo(k *sink) {
	for {
		s.rmu.Lock()
		var next, buffer []byte
		if s.recvErr == nil && k.err == nil && !k.hold {
			next, buffer = s.queue.Pop()
		}
		if buffer == nil {
			s.draining = false
			s.readable.Broadcast()
			finished := s.finishedLocked()
			s.rmu.Unlock()
			if finished != nil {
				finished()
			}
			return
		}
		s.rmu.Unlock()
		n, err := k.dst.Write(next)
		k.count.Add(uint64(n))
		if errors.Is(err, os.ErrDeadlineExceeded) { // that of Hold
			s.rmu.Lock()
			if s.recvErr == nil {
				s.queue.Unpop(next[n:], buffer)
				s.rmu.Unlock()
				s.account(0, 0, n)
				continue
			}
			s.rmu.Unlock()
		}
		netx.Pool.Put(buffer)
		s.account(0, 0, len(next))
		if err != nil {
			s.rmu.Lock()
			k.err = err
			dropped := s.queue.Clear()
			s.rmu.Unlock()
			s.account(0, 0, dropped)
		}
	}
}

// Hold returns when nothing more is written to the socket that the stream forwards to, until Unhold. The connection stands still
// already.
func (s *Stream) Hold(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		s.rmu.Lock()
		defer s.rmu.Unlock()
		s.readable.Broadcast()
	})()
	s.rmu.Lock()
	defer s.rmu.Unlock()
	k := s.sink
	if k == nil {
		return nil
	}
	if k.hold = true; s.draining {
		_ = k.dst.SetWriteDeadline(time.Unix(1, 0)) // on a socket that is closed, writing has ended
	}
	for s.draining {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.readable.Wait(&s.rmu)
	}
	return nil
}

// Unhold lets forwarding go on; the socket's write deadline is taken back already.
func (s *Stream) Unhold() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.sink == nil || !s.sink.hold {
		return
	}
	s.sink.hold = false
	if s.queue.Len() > 0 && !s.draining {
		s.draining = true
		go s.drainTo(s.sink)
	}
}

// finishedLocked returns what is to be called, without rmu, if forwarding is over now.
func (s *Stream) finishedLocked() func() {
	k := s.sink
	if k == nil || s.draining || k.done == nil && k.wake == nil {
		return nil
	}
	done, wake := k.done, k.wake
	var err error
	switch {
	case k.err != nil:
		err = &netx.CopyError{Write: true, Err: k.err}
		if s.recvErr == nil {
			s.recvErr = io.ErrClosedPipe // what still comes is dropped
		}
	case s.recvErr != nil:
		err = &netx.CopyError{Err: s.recvErr}
	case s.eof && s.queue.Len() == 0:
	default:
		return nil
	}
	k.done, k.wake = nil, nil
	if done == nil {
		return wake
	}
	return func() { done(err) }
}
