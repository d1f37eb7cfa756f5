// Package sockets lists the TCP connections of a network namespace, and cuts them: connections that are older than a pod's
// enrolment go past the mesh until they end.
package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Connection is an established TCP connection of a network namespace.
type Connection struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// Inbound is set when somebody in the namespace listens on the local port.
	Inbound bool `json:"inbound"`
	// Cookie tells the connection from later ones of the same addresses.
	Cookie uint64 `json:"cookie"`
	// device is the interface that the socket is bound to.
	device uint32
	family uint8
}

// ErrCannotCut means that the kernel does not end other processes' connections.
var ErrCannotCut = errors.New("the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)")

// Numbers of linux/sock_diag.h and linux/inet_diag.h that x/sys does not name.
const (
	diagByFamily = 20
	diagDestroy  = 21

	stateEstablished = 1
	stateListen      = 10

	requestLen = 56
	answerLen  = 72
	// idOffset is that of the socket's identity: 8 in a request, 4 in an answer.
	idInRequest, idInAnswer = 8, 4
)

// Established lists what reaches from the namespace to elsewhere; connections over loopback and to itself are left out.
func Established(ns *os.File) ([]Connection, error) {
	all, listening := []Connection{}, map[uint16]bool{}
	err := dump(ns, unix.IPPROTO_TCP, 1<<stateEstablished|1<<stateListen, func(_ uint8, answer []byte) {
		connection, state, ok := decode(answer)
		switch {
		case !ok:
		case state == stateListen:
			listening[connection.Local.Port()] = true
		case !connection.Remote.Addr().IsLoopback() && connection.Remote.Addr() != connection.Local.Addr():
			all = append(all, connection)
		}
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Inbound = listening[all[i].Local.Port()]
	}
	return all, nil
}

// dump shows each the sockets of a protocol in some states, by family, as structs inet_diag_msg.
func dump(ns *os.File, protocol uint8, states uint32, each func(family uint8, answer []byte)) error {
	c, err := dial(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		data := request(family, states, nil)
		data[1] = protocol
		messages, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: diagByFamily, Flags: netlink.Request | netlink.Dump}, Data: data,
		})
		if err != nil {
			if family == unix.AF_INET6 {
				continue // a kernel without IPv6
			}
			return unlistable(protocol, err)
		}
		for _, m := range messages {
			each(family, m.Data)
		}
	}
	return nil
}

// unlistable says why sockets of a protocol are not listed.
func unlistable(protocol uint8, err error) error {
	name, module := "TCP", "tcp_diag"
	if protocol == unix.IPPROTO_UDP {
		name, module = "UDP", "udp_diag"
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("list %s sockets: %w: the kernel lacks inet_diag or %s: load them on the node (modprobe -a inet_diag %s)", name, err, module, module)
	}
	return fmt.Errorf("list %s sockets: %w", name, err)
}

// Cut ends a connection: both sides see a reset. One that has ended by itself is no error.
func Cut(ns *os.File, connection Connection) error {
	c, err := dial(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: diagDestroy, Flags: netlink.Request | netlink.Acknowledge},
		Data:   request(connection.familyOf(), 1<<stateEstablished, &connection),
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %w", ErrCannotCut, err)
	case err != nil:
		return fmt.Errorf("cut connection %s to %s: %w", connection.Local, connection.Remote, err)
	}
	return nil
}

func dial(ns *os.File) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: int(ns.Fd())})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, unlistable(unix.IPPROTO_TCP, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open socket diagnosis in %s: %w", ns.Name(), err)
	}
	return c, nil
}

// familyOf is the socket's: an IPv6 socket may carry IPv4.
func (c Connection) familyOf() uint8 {
	if c.family != 0 {
		return c.family
	}
	if c.Local.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// request is a struct inet_diag_req_v2.
func request(family uint8, states uint32, of *Connection) []byte {
	b := make([]byte, requestLen)
	b[0], b[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], states)
	if of == nil {
		return b
	}
	id := b[idInRequest:]
	binary.BigEndian.PutUint16(id[0:], of.Local.Port())
	binary.BigEndian.PutUint16(id[2:], of.Remote.Port())
	putAddr(id[4:20], family, of.Local.Addr())
	putAddr(id[20:36], family, of.Remote.Addr())
	binary.NativeEndian.PutUint32(id[36:], of.device)
	binary.NativeEndian.PutUint32(id[40:], uint32(of.Cookie&0xffffffff))
	binary.NativeEndian.PutUint32(id[44:], uint32(of.Cookie>>32))
	return b
}

func putAddr(b []byte, family uint8, a netip.Addr) {
	if family == unix.AF_INET {
		four := a.Unmap().As4()
		copy(b, four[:])
		return
	}
	sixteen := a.As16()
	copy(b, sixteen[:])
}

// decode reads a struct inet_diag_msg.
func decode(b []byte) (c Connection, state uint8, ok bool) {
	if len(b) < answerLen {
		return c, 0, false
	}
	c.family, state = b[0], b[1]
	id := b[idInAnswer:]
	addr := func(b []byte) netip.Addr {
		if c.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	c.Local = netip.AddrPortFrom(addr(id[4:20]), binary.BigEndian.Uint16(id[0:]))
	c.Remote = netip.AddrPortFrom(addr(id[20:36]), binary.BigEndian.Uint16(id[2:]))
	c.device = binary.NativeEndian.Uint32(id[36:])
	c.Cookie = uint64(binary.NativeEndian.Uint32(id[40:])) | uint64(binary.NativeEndian.Uint32(id[44:]))<<32
	return c, state, true
}
