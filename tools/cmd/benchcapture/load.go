package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// end is where connections start and what they go to.
type end struct {
	from *os.File
	ip   netip.Addr
	port int
}

// inside runs fn on a thread in a network namespace, which ends with it.
func inside(ns *os.File, fn func() error) error {
	return netx.OnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return fn()
	})
}

// pin keeps the calling thread on one processor, the same for all: what one end starts in the kernel is then paid for here.
func pin() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("ask for processors: %w", err)
	}
	for n := 0; one.Count() == 0 && n < 1024; n++ {
		if all.IsSet(n) {
			one.Set(n)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choose a processor: %w", err)
	}
	return nil
}

// listen opens a listener as the proxy does.
func listen(ns *os.File, port int) (fd int, err error) {
	err = inside(ns, func() error {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		for _, o := range [][3]int{
			{unix.SOL_SOCKET, unix.SO_MARK, int(plan.OwnMark().Value)}, {unix.SOL_IP, unix.IP_TRANSPARENT, 1}, {unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		} {
			if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
				return err
			}
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
			return err
		}
		return unix.Listen(fd, 128)
	})
	if err != nil {
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

// answer takes connections one after the other and gives each byte back, until the listener is shut down.
func answer(listener int) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer unix.Close(listener)
	if pin() != nil {
		return // the client notices
	}
	var b [1]byte
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		if n, err := unix.Read(fd, b[:]); err == nil && n == 1 {
			_, _ = unix.Write(fd, b[:]) // the client notices
		}
		unix.Close(fd)
	}
}

// load makes connections, one after the other. Each ends with a reset, so that no port has to rest.
func (e end) load(conns int) error {
	return inside(e.from, func() error {
		if err := pin(); err != nil {
			return err
		}
		var b [1]byte
		for range conns {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := e.once(fd, b[:]); err != nil {
				unix.Close(fd)
				return err
			}
			unix.Close(fd)
		}
		return nil
	})
}

func (e end) once(fd int, b []byte) error {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: e.port, Addr: e.ip.As4()}); err != nil {
		return fmt.Errorf("connect %s: %w", e.ip, err)
	}
	if _, err := unix.Write(fd, b); err != nil {
		return err
	}
	if n, err := unix.Read(fd, b); err != nil || n != 1 {
		return fmt.Errorf("answer of %s: %d bytes, %w", e.ip, n, err)
	}
	return nil
}
