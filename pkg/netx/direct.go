package netx

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadNow reads what a non-blocking socket has; EAGAIN says that there is nothing.
//
// It does not tell the scheduler, unlike syscall.Read: a call that can't block needs neither a thread to stand in for this one
// nor the scheduler's watchman, whose wake-up costs more than a small read.
func ReadNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return now(syscall.SYS_READ, fd, b)
}

// WriteNow writes what a non-blocking socket takes; EAGAIN says that it is full. See [ReadNow].
func WriteNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return now(syscall.SYS_WRITE, fd, b)
}

// maxPieces is how many pieces go into one system call.
const maxPieces = 16

// WritevNow is [WriteNow] for several pieces; it stops where the socket is full, of which it tells by EAGAIN or by a short count.
func WritevNow(fd uintptr, pieces [][]byte) (written int, errno syscall.Errno) {
	for len(pieces) > 0 {
		if len(pieces) == 1 {
			n, errno := WriteNow(fd, pieces[0])
			return written + n, errno
		}
		var iov [maxPieces]syscall.Iovec
		k, want := 0, 0
		for ; k < min(len(pieces), maxPieces); k++ {
			iov[k].Base = unsafe.SliceData(pieces[k])
			iov[k].SetLen(len(pieces[k]))
			want += len(pieces[k])
		}
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(k))
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return written, errno
		}
		written += int(n)
		if int(n) < want {
			return written, 0
		}
		pieces = pieces[k:]
	}
	return written, 0
}

// Available reads what c has now, without waiting: (0, nil) says that there is nothing, or the end.
func Available(c *net.TCPConn, b []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) { n, errno = ReadNow(fd, b) })
	if err == nil && errno != 0 && errno != syscall.EAGAIN {
		err = os.NewSyscallError("read", errno)
	}
	return n, err
}

// IsReset tells whether c is over in both directions, as after a reset by its peer. One that was ended in one direction only is not.
func IsReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	const closed = 7 // TCP_CLOSE of the kernel's tcp_states.h
	over := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		over = err == nil && info.State == closed
	})
	return over || err != nil
}

// Readable tells whether a non-blocking socket has something to read, an end or an error included.
func Readable(fd uintptr) bool {
	var one [1]byte
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&one[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno != syscall.EAGAIN
		}
	}
}

// CloseWriteNow ends the sending side of a TCP connection. See [ReadNow].
func CloseWriteNow(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall(syscall.SYS_SHUTDOWN, fd, syscall.SHUT_WR, 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("shutdown", errno)
	}
	return err
}

func now(call, fd uintptr, b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// Direct returns c with reads and writes by [ReadNow] and [WriteNow]. It is for connections that carry TLS: their records
// are small, so that what surrounds a system call counts.
func Direct(c *net.TCPConn) (net.Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &direct{TCPConn: c, raw: raw}
	d.reader.call, d.writer.call = d.reader.read, d.writer.write
	return d, nil
}

// direct is a TCP connection that bypasses what package net does around a system call.
type direct struct {
	*net.TCPConn
	raw            syscall.RawConn
	reader, writer oneWayDirect
}

// oneWayDirect is one direction of a direct.
type oneWayDirect struct {
	mu    sync.Mutex // held during a call
	call  func(fd uintptr) bool
	lent  int // of reads: borrow so much when there is something; 0 is that b is the caller's
	b     []byte
	n     int
	errno syscall.Errno
}

// Read implements net.Conn.
func (d *direct) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	r := &d.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	r.b = b
	err := d.raw.Read(r.call)
	r.b = nil
	switch {
	case err != nil:
		return 0, err
	case r.errno != 0:
		return 0, d.failed("read", r.errno)
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// ReadLent implements [Lender].
func (d *direct) ReadLent(size int) ([]byte, int, error) {
	d.reader.mu.Lock()
	d.reader.lent = size
	return d.lent(d.raw.Read(d.reader.call))
}

// lent is the result of ReadLent, of which it ends the call. It is not on the stack while somebody waits.
func (d *direct) lent(err error) ([]byte, int, error) {
	r := &d.reader
	defer r.mu.Unlock()
	b, n := r.b, r.n
	r.b, r.lent = nil, 0
	switch {
	case err != nil:
	case r.errno != 0:
		err = d.failed("read", r.errno)
	case n == 0:
		err = io.EOF
	default:
		return b, n, nil
	}
	if b != nil {
		Pool.Put(b)
	}
	return nil, 0, err
}

// read is called when the socket may be readable; false waits.
func (o *oneWayDirect) read(fd uintptr) bool {
	if o.lent > 0 {
		o.b = Pool.Get(o.lent)
	}
	o.n, o.errno = ReadNow(fd, o.b)
	if o.errno != syscall.EAGAIN {
		return true
	}
	if o.lent > 0 {
		Pool.Put(o.b)
		o.b = nil
	}
	return false
}

// Write implements net.Conn.
func (d *direct) Write(b []byte) (int, error) {
	w := &d.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b, w.n = b, 0
	err := d.raw.Write(w.call)
	w.b = nil
	if err == nil && w.errno != 0 {
		err = d.failed("write", w.errno)
	}
	return w.n, err
}

// write is called when the socket may be writable; false waits.
func (o *oneWayDirect) write(fd uintptr) bool {
	for o.n < len(o.b) {
		var n int
		if n, o.errno = WriteNow(fd, o.b[o.n:]); o.errno != 0 {
			return o.errno != syscall.EAGAIN
		}
		o.n += n
	}
	return true
}

func (d *direct) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: d.LocalAddr(), Addr: d.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}
