package netx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readiness tells which of many sockets have something to read. It is an epoll instance beside the runtime's, which in turn watches
// it: whoever waits for it needs no thread. Safe for concurrent use; one may wait.
type readiness struct {
	file *os.File
	raw  syscall.RawConn
}

func newReadiness() (*readiness, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // package os asks this before it lets the runtime watch
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // fails for a file that is not watched
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("watch an epoll instance: %w", err)
	}
	return &readiness{file: file, raw: raw}, nil
}

func (r *readiness) close() { r.file.Close() }

// add watches a socket until it has something to read, or has ended, of which next tells once, at once if that is so already. False says that
// it cannot be watched.
func (r *readiness) add(c *net.TCPConn, token uint64) bool {
	return r.control(c, unix.EPOLL_CTL_ADD, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32)),
	}) == nil
}

// remove watches it no more. The socket is open still; for one that is not, the kernel has done it.
func (r *readiness) remove(c *net.TCPConn) { _ = r.control(c, unix.EPOLL_CTL_DEL, &unix.EpollEvent{}) }

func (r *readiness) control(c *net.TCPConn, op int, event *unix.EpollEvent) error {
	socket, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = r.raw.Control(func(ep uintptr) {
		gone := socket.Control(func(fd uintptr) { failed = unix.EpollCtl(int(ep), op, int(fd), event) })
		failed = errors.Join(gone, failed)
	})
	return errors.Join(err, failed)
}

// next waits for events, and fails once the instance is closed.
func (r *readiness) next(events []unix.EpollEvent) (n int, err error) {
	var failed error
	err = r.raw.Read(func(fd uintptr) bool {
		for {
			n, failed = unix.EpollWait(int(fd), events, 0)
			if !errors.Is(failed, unix.EINTR) {
				return n > 0 || failed != nil
			}
		}
	})
	return max(n, 0), errors.Join(err, failed)
}
