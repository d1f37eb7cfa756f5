package sockets

import (
	"encoding/binary"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Socket is one of a network namespace, whatever its state.
type Socket struct {
	Local, Remote netip.AddrPort
	Cookie        uint64
	// IPv6 is set for sockets that speak it, V6Only for those that do not speak IPv4 beside it.
	IPv6, V6Only bool
	// Mark is that of its packets; Transparent allows it addresses that are not its namespace's.
	Mark        uint32
	Transparent bool
}

// Attributes of an answer, and a state, that x/sys does not name.
const (
	attributeV6Only  = 11
	attributeMark    = 15
	attributeOptions = 22

	stateClosed = 7 // a UDP socket without a peer
)

// Listeners lists the TCP sockets that listen.
func Listeners(ns *os.File) ([]Socket, error) {
	return list(ns, unix.IPPROTO_TCP, 1<<stateListen)
}

// Receivers lists the UDP sockets without a peer.
func Receivers(ns *os.File) ([]Socket, error) {
	return list(ns, unix.IPPROTO_UDP, 1<<stateClosed)
}

// Connected lists the TCP sockets with a peer.
func Connected(ns *os.File) ([]Socket, error) {
	const listenAndNone = 1<<stateListen | 1<<stateClosed | 1<<6 | 1<<12 // and those that wait for time to pass, or to be accepted
	return list(ns, unix.IPPROTO_TCP, ^uint32(listenAndNone))
}

func list(ns *os.File, protocol uint8, states uint32) (out []Socket, err error) {
	err = dump(ns, protocol, states, func(family uint8, answer []byte) {
		if c, _, ok := decode(answer); ok {
			s := Socket{Local: c.Local, Remote: c.Remote, Cookie: c.Cookie, IPv6: family == unix.AF_INET6}
			s.attributes(answer[answerLen:])
			out = append(out, s)
		}
	})
	return out, err
}

// attributes reads what follows a struct inet_diag_msg.
func (s *Socket) attributes(b []byte) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return // then nothing is known of them, which is the careful answer
	}
	for _, a := range list {
		switch {
		case a.Type == attributeMark && len(a.Data) >= 4:
			s.Mark = binary.NativeEndian.Uint32(a.Data)
		case a.Type == attributeV6Only && len(a.Data) >= 1:
			s.V6Only = a.Data[0] != 0
		case a.Type == attributeOptions && len(a.Data) >= 1:
			s.Transparent = a.Data[0]&transparentBit() != 0
		}
	}
}

// transparentBit is the sixth bit field of struct inet_diag_sockopt; the order of bit fields goes with that of bytes.
func transparentBit() byte {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return 1 << 5
	}
	return 1 << 2
}
