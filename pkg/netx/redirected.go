package netx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxAnswerers bounds the sockets that a [Redirected] answers from, each for one address that was asked.
const maxAnswerers = 64

// Redirected is a UDP socket that may get packets sent to other addresses than its own, and answers them from there. Packets that
// netfilter has redirected come to the socket's own address, and netfilter takes care of the answer. It implements net.PacketConn;
// the addresses that it returns are to be used with its own WriteTo.
type Redirected struct {
	*net.UDPConn
	own  netip.AddrPort
	open func(from netip.AddrPort) (net.PacketConn, error)

	mu        sync.Mutex // guards what follows
	closed    bool
	answerers map[netip.AddrPort]net.PacketConn
}

// asker is the source of a packet.
type asker struct {
	net.UDPAddr
	asked netip.AddrPort // what was asked; not valid if that is the socket itself
}

// NewRedirected makes a Redirected of conn, which it owns from then on. open makes sockets on the addresses that packets were sent to;
// ListenRedirected does both.
func NewRedirected(conn *net.UDPConn, open func(from netip.AddrPort) (net.PacketConn, error)) (*Redirected, error) {
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, errors.New("redirected packets: not a UDP socket")
	}
	r := &Redirected{UDPConn: conn, own: unmap(local.AddrPort()), open: open, answerers: map[netip.AddrPort]net.PacketConn{}}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("redirected packets: %w", err)
	}
	ctlErr := raw.Control(func(fd uintptr) {
		if r.own.Addr().Is4() {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1)
		}
	})
	if err = errors.Join(err, ctlErr); err != nil {
		return nil, fmt.Errorf("redirected packets: %w", err)
	}
	return r, nil
}

// ListenRedirected listens on addr in network.
func ListenRedirected(ctx context.Context, in Network, network, addr string) (*Redirected, error) {
	p, err := in.ListenPacket(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn, ok := p.(*net.UDPConn)
	if !ok {
		p.Close()
		return nil, fmt.Errorf("listen on %s: not a UDP socket", addr)
	}
	outlive := context.WithoutCancel(ctx)
	r, err := NewRedirected(conn, func(from netip.AddrPort) (net.PacketConn, error) {
		answers, err := in.ListenPacket(outlive, network, from.String())
		if err == nil {
			return answers, nil
		}
		// The port may be somebody else's, on all addresses, or one of those that take a privilege.
		f, forgeErr := listenForged(outlive, in, from)
		if forgeErr != nil {
			return nil, errors.Join(err, forgeErr)
		}
		return f, nil
	})
	if err != nil {
		p.Close()
		return nil, err
	}
	return r, nil
}

// CanAnswer tries whether answers can leave from other addresses than the socket's own, from a port of theirs.
func (r *Redirected) CanAnswer(port uint16) error {
	elsewhere := netip.MustParseAddr("192.0.2.1") // of documentation, as that below
	if r.own.Addr().Is6() {
		elsewhere = netip.MustParseAddr("2001:db8::1")
	}
	answers, err := r.open(netip.AddrPortFrom(elsewhere, port))
	if err != nil {
		return err
	}
	return answers.Close()
}

// Withdraw says of the socket that it cannot answer from the addresses that are asked: it is not transparent any more, by which those who
// redirect know sockets that can.
func (r *Redirected) Withdraw() error {
	raw, err := r.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if r.own.Addr().Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 0) })
	if err = errors.Join(err, ctlErr); err != nil {
		return fmt.Errorf("unset IP_TRANSPARENT: %w", err)
	}
	return nil
}

// ReadFrom implements net.PacketConn.
func (r *Redirected) ReadFrom(b []byte) (int, net.Addr, error) {
	var control [unix.SizeofSockaddrInet6 + 2*unix.SizeofCmsghdr]byte
	n, got, _, from, err := r.ReadMsgUDPAddrPort(b, control[:])
	if err != nil {
		return n, nil, err
	}
	a := &asker{UDPAddr: *net.UDPAddrFromAddrPort(unmap(from))}
	if asked := originalOf(control[:got]); asked.IsValid() && asked != r.own {
		a.asked = asked
	}
	return n, a, nil
}

// originalOf reads where a packet was sent to.
func originalOf(control []byte) netip.AddrPort {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.AddrPort{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVORIGDSTADDR && len(m.Data) >= int(unsafe.Sizeof(unix.RawSockaddrInet4{})):
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Data[4:8])), binary.BigEndian.Uint16(m.Data[2:]))
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(m.Data) >= int(unsafe.Sizeof(unix.RawSockaddrInet6{})):
			return unmap(netip.AddrPortFrom(netip.AddrFrom16([16]byte(m.Data[8:24])), binary.BigEndian.Uint16(m.Data[2:])))
		}
	}
	return netip.AddrPort{}
}

// WriteTo implements net.PacketConn. An answer to what ReadFrom returned comes from the address that was asked.
func (r *Redirected) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*asker)
	if !ok {
		return r.UDPConn.WriteTo(b, to)
	}
	if !a.asked.IsValid() {
		return r.UDPConn.WriteTo(b, &a.UDPAddr)
	}
	from, err := r.answerer(a.asked)
	if err != nil {
		return 0, fmt.Errorf("answer from %s: %w", a.asked, err)
	}
	return from.WriteTo(b, &a.UDPAddr)
}

// answerer returns the socket on an address that was asked. Few are: those of the resolvers that a pod knows. When there are too many,
// one goes.
func (r *Redirected) answerer(asked netip.AddrPort) (net.PacketConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, net.ErrClosed
	}
	if conn, ok := r.answerers[asked]; ok {
		return conn, nil
	}
	conn, err := r.open(asked)
	if err != nil {
		return nil, err
	}
	for other, old := range r.answerers {
		if len(r.answerers) < maxAnswerers {
			break
		}
		old.Close()
		delete(r.answerers, other)
	}
	r.answerers[asked] = conn
	return conn, nil
}

// Close implements net.PacketConn.
func (r *Redirected) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, conn := range r.answerers {
		conn.Close()
	}
	clear(r.answerers)
	return r.UDPConn.Close()
}
