package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type socketKind int

const (
	listener socketKind = iota
	packet
	dialled
	spoofed // dialled from a foreign address
)

// config returns the keepalive as package net wants it.
func (k Keepalive) config() net.KeepAliveConfig {
	out := net.KeepAliveConfig{Enable: true, Idle: k.Idle, Interval: k.Interval, Count: k.Count}
	if out.Idle == 0 {
		out.Idle = 180 * time.Second
	}
	if out.Interval == 0 {
		out.Interval = 180 * time.Second
	}
	if out.Count == 0 {
		out.Count = 9
	}
	return out
}

// dial connects to addr, from local if its address is valid; port 0 leaves that to the kernel. made is called when a socket exists.
func (n *NS) dial(ctx context.Context, network string, addr, local netip.AddrPort, made func() error) (net.Conn, error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	d := &net.Dialer{KeepAliveConfig: n.opt.Keepalive.config()}
	d.SetMultipathTCP(false)
	kind := dialled
	if local.Addr().IsValid() {
		kind = spoofed
	}
	options := n.control(kind)
	stream := strings.HasPrefix(network, "tcp")
	d.Control = func(network, address string, c syscall.RawConn) error {
		if made != nil {
			if err := made(); err != nil {
				return err
			}
		}
		if err := options(network, address, c); err != nil || !stream {
			return err
		}
		var err error
		cerr := c.Control(func(fd uintptr) { err = start(int(fd), local, addr) })
		return errors.Join(cerr, err)
	}
	if local.Addr().IsValid() && !stream {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	return d.DialContext(ctx, network, addr.String())
}

// start binds fd to local, if its address is valid, and begins to connect. A peer on this machine has answered when it returns; then
// package net, which connects again, finds that there is nothing to wait for, and spares a goroutine and two trips through the
// scheduler. What goes wrong here goes wrong there too, and is reported by it.
func start(fd int, local, addr netip.AddrPort) error {
	if local.Addr().IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(local.Addr().Unmap(), local.Port()))); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	if addr.Addr().Zone() == "" {
		_ = unix.Connect(fd, sockaddr(addr))
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// control sets the options of a fresh socket.
func (n *NS) control(kind socketKind) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = n.setOptions(int(fd), kind, strings.HasSuffix(network, "6")) })
		return errors.Join(cerr, err)
	}
}

func (n *NS) setOptions(fd int, kind socketKind, v6 bool) error {
	mark := n.opt.Mark
	if answers := kind == listener || kind == packet; answers && n.opt.ListenMark != 0 {
		mark = n.opt.ListenMark
	}
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("set SO_MARK: %w", err)
		}
	}
	switch kind {
	case listener, packet:
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("set SO_REUSEPORT: %w", err)
		}
		if err := setTransparent(fd, v6); err != nil && kind == listener && n.opt.RequireTransparent {
			return fmt.Errorf("set IP_TRANSPARENT (needs CAP_NET_ADMIN): %w", err)
		}
	case spoofed:
		if err := setTransparent(fd, v6); err != nil {
			return fmt.Errorf("set IP_TRANSPARENT (needs CAP_NET_ADMIN): %w", err)
		}
		level, free := unix.SOL_IP, unix.IP_FREEBIND
		if v6 {
			level, free = unix.SOL_IPV6, unix.IPV6_FREEBIND
		}
		if err := unix.SetsockoptInt(fd, level, free, 1); err != nil {
			return fmt.Errorf("set IP_FREEBIND: %w", err)
		}
		// One port may serve several destinations: one that is given, and one that the kernel chooses, at connect.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("set SO_REUSEADDR: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
	}
	return nil
}

func setTransparent(fd int, v6 bool) error {
	if v6 {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}
