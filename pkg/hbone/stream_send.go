package hbone

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	// recordSize is the plaintext of a full TLS record: writes of its multiples waste none.
	recordSize = 16 << 10
	// directMin is from where a payload is written straight from the caller's buffer when the connection is free.
	directMin = 4 << 10
)

// Write sends p; it returns when all of it is handed to the connection or queued for the one who writes.
func (s *Stream) Write(p []byte) (int, error) {
	c := s.c
	sent := 0
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		n, err := s.windowLocked(min(len(p), recordSize-h2.FrameHeaderLen), false)
		if err == nil {
			err = s.turnLocked(n, false)
		}
		if err != nil {
			return sent, err
		}
		s.queueLocked(p[:n])
		p = p[n:]
		sent += n
		c.flush()
	}
	return sent, nil
}

// transmit sends frame[h2.FrameHeaderLen:]. The space before the payload takes the frame head, so that a
// large payload reaches the connection without a copy; frame is overwritten. With errStopped it returns what of it is left, behind
// room for a head.
func (s *Stream) transmit(frame []byte) (left []byte, err error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(frame) > h2.FrameHeaderLen {
		n, err := s.windowLocked(len(frame)-h2.FrameHeaderLen, true)
		if err != nil {
			return frame, err
		}
		if err := s.turnLocked(n, true); err != nil {
			return frame, err
		}
		if c.writing || n < directMin {
			s.queueLocked(frame[h2.FrameHeaderLen:][:n])
			c.flush()
		} else {
			s.writeLocked(frame[:h2.FrameHeaderLen+n])
		}
		// The next head overwrites the end of what was just sent.
		frame = frame[n:]
	}
	return nil, nil
}

// writeLocked writes one frame on the free connection, then what others queued meanwhile.
func (s *Stream) writeLocked(frame []byte) {
	c := s.c
	c.writing = true
	h2.FrameHeader{Length: uint32(len(frame) - h2.FrameHeaderLen), Type: h2.FrameData, StreamID: s.id}.Put(frame)
	c.mu.Unlock()
	n, err := c.write(frame)
	c.wrote(frame[n:], err)
	c.mu.Lock()
	c.writes++
	c.drain()
}

func (s *Stream) queueLocked(p []byte) {
	c := s.c
	c.reserve(h2.FrameHeaderLen + len(p))
	c.out = h2.FrameHeader{Length: uint32(len(p)), Type: h2.FrameData, StreamID: s.id}.Append(c.out)
	c.out = append(c.out, p...)
}

// windowLocked waits until at least one byte may be sent and takes up to want from both windows. Streams get
// their share of the connection's window in the order in which they ran into it. While the connection stands still, it waits, or
// answers errStopped to one who parks.
func (s *Stream) windowLocked(want int, parks bool) (int, error) {
	c := s.c
	held := 0 // a writer that does not park answers for its own memory
	if parks {
		held = want
	}
	for {
		if err := s.sendableErr(); err != nil {
			s.leaveBlocked()
			return 0, err
		}
		if c.stopped {
			if s.leaveBlocked(); parks {
				return 0, errStopped
			}
			s.sendable.Wait(&s.c.mu)
			continue
		}
		mine, shared := s.send.Available(), c.send.Available()
		if mine == 0 {
			s.leaveBlocked()
			if err := s.waitSendable(held); err != nil {
				return 0, err
			}
			continue
		}
		if shared == 0 || c.blocked.head != nil && c.blocked.head != s {
			c.blocked.push(s)
			if err := s.waitSendable(held); err != nil {
				s.leaveBlocked()
				return 0, err
			}
			continue
		}
		n := min(int64(want), mine, shared, int64(c.peer.MaxFrameSize))
		if c.peer.MaxFrameSize < 4*recordSize {
			n = min(n, recordSize-h2.FrameHeaderLen)
		}
		s.send.Take(n)
		c.send.Take(n)
		c.sent += uint64(n)
		s.leaveBlocked()
		return int(n), nil
	}
}

func (s *Stream) sendableErr() error {
	switch {
	case s.sendErr != nil:
		return s.sendErr
	case s.localEnded:
		return net.ErrClosed
	case s.writeExpired:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (s *Stream) leaveBlocked() {
	if s.queued {
		s.c.blocked.remove(s)
	}
	s.c.unblock()
}

// turnLocked waits until n bytes may be queued or written. On error it gives the window back.
func (s *Stream) turnLocked(n int, parks bool) error {
	c := s.c
	for {
		err := s.sendableErr()
		if err == nil && c.stopped {
			if !parks {
				c.turn.Wait()
				continue
			}
			err = errStopped
		}
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
type streamList struct{ head, tail *Stream }

func (l *streamList) push(s *Stream) {
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

func (l *streamList) remove(s *Stream) {
	if !s.queued {
		return
	}
	var prev *Stream
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

// CopyFrom sends all that src yields, until its end, and adds the bytes to count. It holds a buffer only
// while data flows: an idle source is waited for without one. It parks on the lane, which may be nil, when the connection is made to
// stand still. Errors are [*netx.CopyError], or [netx.ErrMoved].
func (s *Stream) CopyFrom(src *net.TCPConn, count *netx.Counter, lane *netx.Lane) error {
	c, err := s.startCopy(src, count, lane)
	for err == nil {
		// Here it waits most of its life: what else there is to do is in functions of their own, so that the stack stays small.
		if err = c.raw.Read(c.read); err == nil {
			err = c.pass()
		} else {
			err = c.park(err)
		}
	}
	if err == io.EOF { //nolint:errorlint // our own, bare
		return nil
	}
	return err
}

// copying is one CopyFrom.
type copying struct {
	s     *Stream
	raw   syscall.RawConn
	count *netx.Counter
	lane  *netx.Lane
	in    socketReader
	read  func(fd uintptr) bool // in.read
}

// startCopy sends what another process has read and not sent.
func (s *Stream) startCopy(src *net.TCPConn, count *netx.Counter, lane *netx.Lane) (*copying, error) {
	raw, err := src.SyscallConn()
	if err != nil {
		return nil, &netx.CopyError{Err: err}
	}
	if rest := lane.TakeRest(); len(rest) > 0 {
		if err := s.sendAll(append(make([]byte, h2.FrameHeaderLen), rest...), lane); err != nil {
			return nil, err
		}
		count.Add(uint64(len(rest)))
	}
	c := &copying{s: s, raw: raw, count: count, lane: lane, in: socketReader{size: netx.SmallBuffer, turns: s.c.turns}}
	c.read = c.in.read
	return c, nil
}

// pass sends what was read; io.EOF is the source's end.
func (c *copying) pass() error {
	in := &c.in
	if in.n == 0 {
		netx.Pool.Put(in.buf)
		in.buf = nil
		if in.err != 0 {
			return &netx.CopyError{Err: os.NewSyscallError("read", in.err)}
		}
		return io.EOF
	}
	err := c.s.sendAll(in.buf[:h2.FrameHeaderLen+in.n], c.lane)
	netx.Pool.Put(in.buf)
	in.buf = nil
	if err != nil {
		return err
	}
	c.count.Add(uint64(in.n))
	in.adapt()
	return nil
}

// park deals with a read that failed: it may only have been interrupted.
func (c *copying) park(err error) error {
	if !c.lane.Interrupted(err) {
		return &netx.CopyError{Err: err}
	}
	return c.lane.Park(nil)
}

// sendAll is transmit for one who parks.
func (s *Stream) sendAll(frame []byte, lane *netx.Lane) error {
	for {
		left, err := s.transmit(frame)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errStopped):
			return &netx.CopyError{Write: true, Err: err}
		case lane == nil:
			s.awaitFlow(nil)
		default:
			if err := lane.Park(append([]byte(nil), left[h2.FrameHeaderLen:]...)); err != nil {
				return err
			}
			s.awaitFlow(lane) // the connection stands still before the relay does, and goes on at another moment
		}
		frame = left
	}
}

// awaitFlow returns when the connection does not stand still any more, or the relay is to stand still, too.
func (s *Stream) awaitFlow(lane *netx.Lane) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for s.c.stopped && s.c.err == nil && !lane.Stopping() {
		s.c.turn.Wait()
	}
}

// Poke makes whoever waits for the connection to go on look at its lane.
func (s *Stream) Poke() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.turn.Broadcast()
}

// socketReader reads a socket behind room for a frame head, in sizes that follow the flow.
type socketReader struct {
	turns *netx.Taker // for large reads

	buf  []byte
	size int
	n    int
	err  syscall.Errno
}

// read is called by the poller when fd may be readable; false waits for more, without a buffer.
func (r *socketReader) read(fd uintptr) bool {
	r.buf = netx.Pool.Get(r.size)
	bulk := r.size >= netx.LargeBuffer
	if bulk {
		r.turns.Take()
	}
	r.n, r.err = netx.ReadNow(fd, r.buf[h2.FrameHeaderLen:r.room()])
	if bulk {
		r.turns.Give()
	}
	if r.err == syscall.EAGAIN {
		netx.Pool.Put(r.buf)
		r.buf, r.err = nil, 0
		return false
	}
	return true
}

// room is how much of the buffer is used: frames fill TLS records exactly.
func (r *socketReader) room() int {
	switch r.size {
	case netx.MediumBuffer:
		return recordSize
	case netx.LargeBuffer:
		return 4 * recordSize
	case netx.HugeBuffer:
		return 16 * recordSize
	}
	return r.size
}

// adapt grows the next buffer after a full one and shrinks it after one that was nearly empty.
func (r *socketReader) adapt() {
	full := r.n == r.room()-h2.FrameHeaderLen
	switch {
	case full && r.size == netx.SmallBuffer:
		r.size = netx.MediumBuffer
	case full && r.size == netx.MediumBuffer:
		r.size = netx.LargeBuffer
	case full:
		r.size = netx.HugeBuffer
	case r.n < 2*recordSize && r.size == netx.HugeBuffer:
		r.size = netx.LargeBuffer
	case r.n < recordSize/2 && r.size == netx.LargeBuffer:
		r.size = netx.MediumBuffer
	case r.n < netx.SmallBuffer/2 && r.size == netx.MediumBuffer:
		r.size = netx.SmallBuffer
	}
}
