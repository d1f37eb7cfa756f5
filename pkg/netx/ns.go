package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// NS creates sockets in one network namespace. Safe for concurrent use.
type NS struct {
	file *os.File // nil: the namespace of the process
	opt  Options
	dev  uint64
	ino  uint64

	ports spoofPorts
}

// NewNS returns a Network for the namespace that file refers to. It takes ownership of file.
func NewNS(file *os.File, opt Options) (*NS, error) {
	// Package net probes the address families once per process, with sockets in whatever namespace it is
	// then in. That must not be a pod's, whose loopback may be down.
	if l, err := net.ListenPacket("udp", ":0"); err == nil {
		l.Close()
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		file.Close()
		return nil, fmt.Errorf("stat network namespace: %w", err)
	}
	return &NS{file: file, opt: opt, dev: st.Dev, ino: st.Ino}, nil
}

// HostNS returns a Network for the namespace the process runs in.
func HostNS(opt Options) *NS {
	n := &NS{opt: opt}
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/net", &st) == nil {
		n.dev, n.ino = st.Dev, st.Ino
	}
	return n
}

// Identity returns device and inode of the namespace; two NS of the same namespace have the same.
func (n *NS) Identity() (dev, ino uint64) { return n.dev, n.ino }

// Close releases the namespace. Sockets made before stay open.
func (n *NS) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// Listen implements [Network].
func (n *NS) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	lc := net.ListenConfig{Control: n.control(listener), KeepAliveConfig: n.opt.Keepalive.config()}
	lc.SetMultipathTCP(false) // an MPTCP listener's sockets are refused by sockmap and by some options
	err = n.in(func() error {
		l, err = lc.Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// ListenPacket implements [Network].
func (n *NS) ListenPacket(ctx context.Context, network, addr string) (p net.PacketConn, err error) {
	lc := net.ListenConfig{Control: n.control(packet)}
	err = n.in(func() error {
		p, err = lc.ListenPacket(ctx, network, addr)
		return err
	})
	return p, err
}

// Dial implements [Network].
func (n *NS) Dial(ctx context.Context, network string, addr netip.AddrPort, local netip.Addr) (net.Conn, error) {
	// Package net makes a second socket when the first connected to itself, behind our back and outside
	// the namespace: then start over. So do ports that are in use.
	for range 5 {
		port := 0
		c, err := n.dialOnce(ctx, network, addr, func() netip.AddrPort {
			if local.IsValid() && strings.HasPrefix(network, "tcp") {
				port = n.ports.take()
			}
			return netip.AddrPortFrom(local, uint16(port))
		})
		if !n.ports.refused(port, err) && !errors.Is(err, errSecondSocket) {
			return c, err
		}
	}
	return nil, fmt.Errorf("dial %s: %w", addr, errSecondSocket)
}

var errSecondSocket = errors.New("connection to itself")

// dialOnce makes the socket inside the namespace, then leaves it: a socket stays where it was made, so the
// thread need not wait for the connection. from is asked inside the namespace.
func (n *NS) dialOnce(ctx context.Context, network string, addr netip.AddrPort, from func() netip.AddrPort) (net.Conn, error) {
	if n.file == nil {
		return n.dial(ctx, network, addr, from(), nil)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	out := make(chan result, 1)
	go func() {
		th, err := enter(n.file)
		if err != nil {
			out <- result{err: err}
			return
		}
		made := false
		conn, err := n.dial(ctx, network, addr, from(), func() error {
			if made {
				return errSecondSocket
			}
			made = true
			return th.leave()
		})
		if err == nil || made {
			out <- result{conn, err}
			return
		}
		_ = th.leave() // there was no socket to make
		out <- result{conn, err}
	}()
	r := <-out
	return r.conn, r.err
}

// Do runs fn inside the namespace, on a thread of its own; fn must not start goroutines that are to be inside, too.
func (n *NS) Do(fn func() error) error { return n.in(fn) }

// in runs fn in the namespace.
func (n *NS) in(fn func() error) error {
	if n.file == nil {
		return fn()
	}
	return inFile(n.file, fn)
}

// InNS runs fn on a thread inside the network namespace that fd refers to. fn must not start goroutines
// that are to be inside, too. The thread is thrown away if it can't be brought back.
func InNS(fd int, fn func() error) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicate network namespace: %w", err)
	}
	file := os.NewFile(uintptr(dup), "netns")
	defer file.Close()
	return inFile(file, fn)
}

func inFile(file *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("function in network namespace did not return")
		defer func() { done <- err }()
		th, entered := enter(file)
		if entered != nil {
			err = entered
			return
		}
		err = fn()
		_ = th.leave() // on failure the thread ends with this goroutine, which is still locked to it
	}()
	return <-done
}

// thread is an OS thread inside a foreign namespace, locked to its goroutine.
type thread struct{ home int }

// enter moves the calling goroutine's thread into a namespace. If the goroutine ends without a successful
// leave, the runtime destroys the thread.
func enter(file *os.File) (*thread, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	if err = errors.Join(cerr, err); err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	return &thread{home}, nil
}

func (t *thread) leave() error {
	err := unix.Setns(t.home, unix.CLONE_NEWNET)
	unix.Close(t.home)
	if err != nil {
		return fmt.Errorf("return to own network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}
