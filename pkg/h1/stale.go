package h1

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// staleness looks whether the server ended a connection that is about to be used again, without waiting: a connection that was idle
// for less than the watch's delay has had nobody to notice. It belongs to one goroutine at a time.
type staleness struct {
	raw   syscall.RawConn // nil: not a socket
	other interface{ Stale() bool }
	look  func(fd uintptr)
	byte1 [1]byte
	n     int
	errno syscall.Errno
}

// init prepares for nc: a TCP connection, or one that has a method Stale, which tells whether the peer has ended or reset its side
// or has sent something.
func (s *staleness) init(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		s.raw, _ = tcp.SyscallConn()
		s.look = func(fd uintptr) { s.n, s.errno = netx.ReadNow(fd, s.byte1[:]) }
		return
	}
	s.other, _ = nc.(interface{ Stale() bool })
}

// check returns why the connection can't be used.
func (s *staleness) check() error {
	switch {
	case s.other != nil && s.other.Stale():
		return io.EOF
	case s.raw == nil:
		return nil
	}
	if err := s.raw.Control(s.look); err != nil {
		return err
	}
	switch {
	case s.errno == syscall.EAGAIN:
		return nil
	case s.errno != 0:
		return os.NewSyscallError("read", s.errno)
	case s.n == 0:
		return io.EOF
	}
	return bad("data that answers no request")
}
