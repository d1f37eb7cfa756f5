package netx

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
)

const (
	ipv4Header, ipv6Header, udpHeader = 20, 40, 8

	protocolUDP = 17
	// hopLimit of datagrams that do not leave the machine.
	hopLimit = 64
)

// forged sends UDP datagrams from an address and a port without a socket on them: one that somebody else has, for instance. It takes
// CAP_NET_RAW.
type forged struct {
	net.PacketConn // a raw socket, of IP packets as a whole

	from netip.AddrPort
}

// listenForged makes a forged for datagrams that stay on the machine: longer ones than a link takes are not cut.
func listenForged(ctx context.Context, in Network, from netip.AddrPort) (*forged, error) {
	network, unspecified := "ip4:255", netip.IPv4Unspecified() // IPPROTO_RAW
	if from.Addr().Is6() {
		network, unspecified = "ip6:255", netip.IPv6Unspecified()
	}
	raw, err := in.ListenPacket(ctx, network, unspecified.String())
	if err != nil {
		return nil, err
	}
	return &forged{PacketConn: raw, from: from}, nil
}

// WriteTo implements net.PacketConn.
func (f *forged) WriteTo(payload []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("forge a datagram: to no UDP address")
	}
	packet, err := forge(f.from, unmap(udp.AddrPort()), payload)
	if err != nil {
		return 0, err
	}
	if _, err := f.PacketConn.WriteTo(packet, &net.IPAddr{IP: udp.IP, Zone: udp.Zone}); err != nil {
		return 0, err
	}
	return len(payload), nil
}

// forge makes an IP packet with a UDP datagram. Both addresses are of one family.
func forge(from, to netip.AddrPort, payload []byte) ([]byte, error) {
	header := ipv4Header
	if from.Addr().Is6() {
		header = ipv6Header
	}
	length := udpHeader + len(payload)
	if from.Addr().Is6() != to.Addr().Is6() || header+length > 1<<16-1 {
		return nil, errors.New("forge a datagram: too long, or of two families")
	}
	packet := make([]byte, header+length)
	source, destination := from.Addr().AsSlice(), to.Addr().AsSlice()
	if header == ipv4Header {
		packet[0] = 4<<4 | ipv4Header/4
		binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
		packet[8], packet[9] = hopLimit, protocolUDP
		copy(packet[12:], source)
		copy(packet[16:], destination)
		binary.BigEndian.PutUint16(packet[10:], checksum(packet[:header]))
	} else {
		packet[0] = 6 << 4
		binary.BigEndian.PutUint16(packet[4:], uint16(length))
		packet[6], packet[7] = protocolUDP, hopLimit
		copy(packet[8:], source)
		copy(packet[24:], destination)
	}
	datagram := packet[header:]
	binary.BigEndian.PutUint16(datagram, from.Port())
	binary.BigEndian.PutUint16(datagram[2:], to.Port())
	binary.BigEndian.PutUint16(datagram[4:], uint16(length))
	copy(datagram[udpHeader:], payload)
	sum := checksum(source, destination, []byte{0, protocolUDP, byte(length >> 8), byte(length)}, datagram)
	if sum == 0 { // which says that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(datagram[6:], sum)
	return packet, nil
}

// checksum is that of IP and UDP (RFC 1071), of parts that one follows the other; all but the last are of an even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, part := range parts {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
