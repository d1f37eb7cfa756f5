// Package nettest gives tests network namespaces without names: they vanish with their last descriptor, so a test
// that dies leaves nothing behind.
package nettest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Timeout bounds every exchange of a test.
const Timeout = 20 * time.Second

// New returns a fresh namespace with loopback up.
func New(t testing.TB) *os.File {
	t.Helper()
	var file *os.File
	err := netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatalf("make network namespace (the test needs root): %v", err)
	}
	t.Cleanup(func() { file.Close() })
	h := handle(t, file)
	defer h.Close()
	lo, err := h.LinkByName("lo")
	check(t, err)
	check(t, h.LinkSetUp(lo))
	return file
}

func handle(t testing.TB, ns *os.File) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()))
	check(t, err)
	return h
}

// Link joins a and b by a veth pair called eth0 at both ends, with the addresses given as prefixes. The first
// address of each family at b becomes a's default gateway.
func Link(t testing.TB, a, b *os.File, addrsA, addrsB []string) {
	t.Helper()
	LinkAs(t, a, b, "eth0", "eth0", addrsA, addrsB)
}

// LinkAs is Link with names of the ends.
func LinkAs(t testing.TB, a, b *os.File, nameA, nameB string, addrsA, addrsB []string) {
	t.Helper()
	ha, hb := handle(t, a), handle(t, b)
	defer ha.Close()
	defer hb.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA, Namespace: netlink.NsFd(a.Fd())},
		PeerName:  nameB, PeerNamespace: netlink.NsFd(b.Fd()),
	}
	check(t, ha.LinkAdd(veth))
	up := func(h *netlink.Handle, name string, addrs []string) {
		l, err := h.LinkByName(name)
		check(t, err)
		for _, s := range addrs {
			addr, err := netlink.ParseAddr(s)
			check(t, err)
			addr.Flags = unix.IFA_F_NODAD
			check(t, h.AddrAdd(l, addr))
		}
		check(t, h.LinkSetUp(l))
	}
	up(ha, nameA, addrsA)
	up(hb, nameB, addrsB)
	seen := map[bool]bool{}
	for _, s := range addrsB {
		gw := netip.MustParsePrefix(s).Addr()
		if seen[gw.Is4()] {
			continue
		}
		seen[gw.Is4()] = true
		check(t, ha.RouteAdd(&netlink.Route{Gw: gw.AsSlice()}))
	}
}

// Do runs fn inside ns and fails the test on error.
func Do(t testing.TB, ns *os.File, fn func() error) {
	t.Helper()
	check(t, netns.Do(ns, fn))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Socket says how a socket of a test is made.
type Socket struct {
	Mark        uint32
	Transparent bool
	ReusePort   bool       // of Listen
	Local       netip.Addr // of Dial
}

func (s Socket) control(network, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if s.Mark != 0 {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(s.Mark))
		}
		if s.ReusePort && err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		if s.Transparent && err == nil {
			level, opt := unix.SOL_IP, unix.IP_TRANSPARENT
			if strings.HasSuffix(network, "6") {
				level, opt = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			err = unix.SetsockoptInt(int(fd), level, opt, 1)
		}
	})
	if err == nil {
		err = ctlErr
	}
	return err
}

// Listen opens a TCP listener inside ns.
func Listen(t testing.TB, ns *os.File, addr string) *net.TCPListener {
	t.Helper()
	return ListenAs(t, ns, addr, Socket{})
}

// ListenAs is Listen with a socket as s says.
func ListenAs(t testing.TB, ns *os.File, addr string, s Socket) *net.TCPListener {
	t.Helper()
	var ln net.Listener
	Do(t, ns, func() error {
		lc := net.ListenConfig{Control: s.control}
		lc.SetMultipathTCP(false)
		var err error
		ln, err = lc.Listen(context.Background(), "tcp", addr)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// ListenUDP opens a UDP socket inside ns.
func ListenUDP(t testing.TB, ns *os.File, addr string) *net.UDPConn {
	t.Helper()
	pc, err := tryListenUDP(ns, addr, Socket{})
	check(t, err)
	t.Cleanup(func() { pc.Close() })
	return pc
}

// ListenRedirected opens a UDP socket inside ns that answers from the address that was asked, as the proxy's does.
func ListenRedirected(t testing.TB, ns *os.File, addr string, s Socket) net.PacketConn {
	t.Helper()
	file, err := netns.Open(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()))
	check(t, err)
	in, err := netx.NewNS(file, netx.Options{Mark: s.Mark})
	check(t, err)
	r, err := netx.ListenRedirected(t.Context(), in, "udp", addr)
	check(t, err)
	t.Cleanup(func() {
		r.Close()
		in.Close()
	})
	return r
}

func tryListenUDP(ns *os.File, addr string, s Socket) (*net.UDPConn, error) {
	var pc net.PacketConn
	err := netns.Do(ns, func() error {
		var err error
		pc, err = (&net.ListenConfig{Control: s.control}).ListenPacket(context.Background(), "udp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// TryDial connects from inside ns; network is tcp or udp.
func TryDial(ns *os.File, network, addr string, s Socket) (net.Conn, error) {
	var c net.Conn
	err := netns.Do(ns, func() error {
		d := net.Dialer{Timeout: Timeout, Control: s.control, KeepAlive: -1}
		d.SetMultipathTCP(false)
		if s.Local.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.Local, 0))
		}
		var err error
		c, err = d.DialContext(context.Background(), network, addr)
		return err
	})
	return c, err
}

// Dial is TryDial that must succeed; the connection is closed with the test.
func Dial(t testing.TB, ns *os.File, network, addr string, s Socket) net.Conn {
	t.Helper()
	c, err := TryDial(ns, network, addr, s)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Serve answers every line on ln with "name<line>", until ln closes; it first sends "name peer local" of the
// connection, where local is the original destination if the connection was redirected.
func Serve(ln *net.TCPListener, name string) {
	go func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				dst, err := OriginalDst(c)
				if err != nil {
					dst = c.LocalAddr().(*net.TCPAddr).AddrPort()
				}
				peer := c.RemoteAddr().(*net.TCPAddr).AddrPort()
				fmt.Fprintf(c, "%s %s %s\n", name, unmap(peer).Addr(), unmap(dst))
				buf := make([]byte, 512)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(append([]byte(name), buf[:n]...)); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// ServeUDP answers every packet with "name<packet>" until pc closes.
func ServeUDP(pc net.PacketConn, name string) {
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(append([]byte(name), buf[:n]...), from)
		}
	}()
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// OriginalDst asks connection tracking where c was going.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var out netip.AddrPort
	ctlErr := raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is4() {
			var m *unix.IPv6Mreq // 16 bytes of address and more: enough for a sockaddr_in
			if m, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, 80); err == nil {
				b := m.Multiaddr
				out = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			}
			return
		}
		var info *unix.IPv6MTUInfo // starts with a sockaddr_in6
		if info, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, 80); err == nil {
			port := info.Addr.Port
			out = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), port<<8|port>>8)
		}
	})
	if err == nil {
		err = ctlErr
	}
	return out, err
}

// Exchange writes msg and returns what comes back.
func Exchange(c net.Conn, msg string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(msg)); err != nil {
		return "", err
	}
	return Read(c)
}

// Read returns the next chunk that arrives.
func Read(c net.Conn) (string, error) {
	if err := c.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}
