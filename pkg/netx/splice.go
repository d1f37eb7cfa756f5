package netx

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// spliceRound bounds how long a pipe is kept by one flow before the socket is waited for without one.
const spliceRound = 4 << 20

// splice moves bytes between sockets inside the kernel. It waits for src without holding anything; while
// data flows, the runtime's pooled pipes are used.
func splice(dst, src *net.TCPConn, count *Counter, lane *Lane) error {
	if rest := lane.TakeRest(); len(rest) > 0 {
		n, err := dst.Write(rest)
		count.Add(uint64(n))
		if err != nil {
			return &CopyError{Write: true, Err: err}
		}
	}
	raw, err := src.SyscallConn()
	if err != nil {
		return &CopyError{Err: err}
	}
	var w waiter
	ready := w.ready
	for {
		if err := raw.Read(ready); err != nil {
			if !lane.Interrupted(err) {
				return &CopyError{Err: err}
			}
			if err := lane.Park(nil); err != nil {
				return err
			}
			continue
		}
		if w.err != nil {
			return &CopyError{Err: os.NewSyscallError("recv", w.err)}
		}
		if w.n == 0 {
			return nil
		}
		if err := spliceRounds(dst, src, count, w.n); err != nil && !lane.Interrupted(err) {
			return err
		}
	}
}

// spliceRounds moves the avail bytes that are known to wait in src.
func spliceRounds(dst, src *net.TCPConn, count *Counter, avail int) error {
	n, err := dst.ReadFrom(&io.LimitedReader{R: src, N: int64(min(avail, spliceRound))})
	count.Add(uint64(n))
	if err != nil {
		return &CopyError{Write: true, Err: err}
	}
	return nil
}

// waiter finds out how much a socket has, without a buffer.
type waiter struct {
	n   int // bytes waiting; 0 is the end
	err error
}

// ready is called by the poller when fd may be readable; false waits for more.
func (w *waiter) ready(fd uintptr) bool {
	w.n, w.err = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	if w.err != nil || w.n > 0 {
		return true
	}
	var b [1]byte
	n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return false
	case err != nil:
		w.err = err
	}
	w.n = n
	return true
}
