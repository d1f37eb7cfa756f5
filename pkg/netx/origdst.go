package netx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, at their own levels.
const soOriginalDst = 80

// OriginalDst returns where a connection was going before netfilter redirected it to us, or its local
// address when it was not redirected. IPv4 addresses are never in their IPv6-mapped form.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	tcp, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, errors.New("original destination: connection is closed")
	}
	local := unmap(tcp.AddrPort())
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	var dst netip.AddrPort
	var oerr error
	cerr := raw.Control(func(fd uintptr) {
		if local.Addr().Is4() {
			dst, oerr = originalDst4(fd)
		} else {
			dst, oerr = originalDst6(fd)
		}
	})
	switch {
	case cerr != nil:
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", cerr)
	case errors.Is(oerr, unix.ENOENT), errors.Is(oerr, unix.ENOPROTOOPT), errors.Is(oerr, unix.EOPNOTSUPP):
		return local, nil // no NAT entry, or no conntrack at all
	case oerr != nil:
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", oerr)
	}
	return unmap(dst), nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func originalDst4(fd uintptr) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet4
	if err := getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port)), nil
}

func originalDst6(fd uintptr) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	if err := getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port(&sa.Port)), nil
}

// port reads a port that the kernel left in network order.
func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }

func getsockopt(fd uintptr, level int, p unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), soOriginalDst, uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Local says that an accepted connection's own address is one of its network namespace, so that its socket needs no IP_TRANSPARENT,
// which it has from its listener. It must not have it where netfilter redirects several ports to one: a peer may use one source port
// for connections to two of them, which netfilter tells apart by changing one's port, after the kernel has looked for its socket; it
// takes back what the kernel found then, the other connection's socket, unless that is transparent.
func Local(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("make a socket local: %w", err)
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("make a socket local: %w", err)
	}
	return nil
}
