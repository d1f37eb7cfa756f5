// Package wiretap reads what tcpdump captured between two nodes and says what an eavesdropper would have learnt.
package wiretap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// Segment is the payload of one TCP segment.
type Segment struct {
	Source, Destination netip.AddrPort
	// Sequence is the number of the payload's first byte.
	Sequence uint32
	Payload  []byte
}

// Flow sums the segments that have payload between two ends, both directions.
type Flow struct {
	// Client is the end with the ephemeral port: the one with the higher port number.
	Client, Server netip.AddrPort
	Bytes          int
}

const (
	pcapMagicMicroseconds = 0xa1b2c3d4
	pcapMagicNanoseconds  = 0xa1b23c4d
	linkTypeEthernet      = 1
	linkTypeLinuxSLL      = 113
	linkTypeLinuxSLL2     = 276
	etherTypeIPv4         = 0x0800
	etherTypeIPv6         = 0x86dd
	protocolTCP           = 6
	// maxPacket bounds what a damaged file can make us allocate, in bytes.
	maxPacket = 1 << 20
)

// Read parses a capture file (pcap, not pcapng; Ethernet or Linux cooked) and returns its TCP segments that carry
// payload. Other packets are left out; a file cut off in the middle of a packet ends there.
func Read(r io.Reader) ([]Segment, error) {
	var segments []Segment
	err := Each(r, func(s Segment) { segments = append(segments, s) })
	return segments, err
}

// Each is Read that gives one segment after the other away as it comes, for captures that are still being made.
func Each(r io.Reader, see func(Segment)) error {
	var header [24]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return fmt.Errorf("capture header: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch magic := binary.LittleEndian.Uint32(header[:4]); magic {
	case pcapMagicMicroseconds, pcapMagicNanoseconds:
	default:
		order = binary.BigEndian
		if magic := order.Uint32(header[:4]); magic != pcapMagicMicroseconds && magic != pcapMagicNanoseconds {
			return fmt.Errorf("no capture file: it starts with %x", header[:4])
		}
	}
	link := order.Uint32(header[20:24])
	for {
		var record [16]byte
		if _, err := io.ReadFull(r, record[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		length := order.Uint32(record[8:12])
		if length > maxPacket {
			return fmt.Errorf("a packet of %d bytes: the capture is damaged", length)
		}
		packet := make([]byte, length)
		if _, err := io.ReadFull(r, packet); err != nil {
			return nil //nolint:nilerr // cut off while being written: what is whole counts
		}
		if segment, ok := parseFrame(link, packet); ok {
			see(segment)
		}
	}
}

// parseFrame strips the link layer.
func parseFrame(link uint32, frame []byte) (Segment, bool) {
	var etherType uint16
	switch {
	case link == linkTypeEthernet && len(frame) >= 14:
		etherType, frame = binary.BigEndian.Uint16(frame[12:14]), frame[14:]
	case link == linkTypeLinuxSLL && len(frame) >= 16:
		etherType, frame = binary.BigEndian.Uint16(frame[14:16]), frame[16:]
	case link == linkTypeLinuxSLL2 && len(frame) >= 20:
		etherType, frame = binary.BigEndian.Uint16(frame[0:2]), frame[20:]
	default:
		return Segment{}, false
	}
	switch etherType {
	case etherTypeIPv4:
		return parseIPv4(frame)
	case etherTypeIPv6:
		return parseIPv6(frame)
	}
	return Segment{}, false
}

func parseIPv4(packet []byte) (Segment, bool) {
	if len(packet) < 20 || packet[9] != protocolTCP {
		return Segment{}, false
	}
	headerLength := int(packet[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(packet[2:4]))
	if total == 0 || total > len(packet) { // segmentation offload writes 0
		total = len(packet)
	}
	if headerLength < 20 || headerLength > total {
		return Segment{}, false
	}
	source, _ := netip.AddrFromSlice(packet[12:16])
	destination, _ := netip.AddrFromSlice(packet[16:20])
	return parseTCP(source, destination, packet[headerLength:total])
}

func parseIPv6(packet []byte) (Segment, bool) {
	if len(packet) < 40 || packet[6] != protocolTCP {
		return Segment{}, false
	}
	source, _ := netip.AddrFromSlice(packet[8:24])
	destination, _ := netip.AddrFromSlice(packet[24:40])
	return parseTCP(source, destination, packet[40:])
}

func parseTCP(source, destination netip.Addr, packet []byte) (Segment, bool) {
	if len(packet) < 20 {
		return Segment{}, false
	}
	offset := int(packet[12]>>4) * 4
	if offset < 20 || offset >= len(packet) {
		return Segment{}, false
	}
	return Segment{
		Source:      netip.AddrPortFrom(source, binary.BigEndian.Uint16(packet[0:2])),
		Destination: netip.AddrPortFrom(destination, binary.BigEndian.Uint16(packet[2:4])),
		Sequence:    binary.BigEndian.Uint32(packet[4:8]),
		Payload:     packet[offset:],
	}, true
}

// Flows groups segments by connection, sorted by server and client.
func Flows(segments []Segment) []Flow {
	byEnds := map[[2]netip.AddrPort]int{}
	for _, s := range segments {
		client, server := s.Source, s.Destination
		if client.Port() < server.Port() {
			client, server = server, client
		}
		byEnds[[2]netip.AddrPort{client, server}] += len(s.Payload)
	}
	var flows []Flow
	for ends, size := range byEnds {
		flows = append(flows, Flow{Client: ends[0], Server: ends[1], Bytes: size})
	}
	slices.SortFunc(flows, func(a, b Flow) int {
		if c := a.Server.Compare(b.Server); c != 0 {
			return c
		}
		return a.Client.Compare(b.Client)
	})
	return flows
}

// Contains reports whether a text crossed in the clear, within one segment or across two that follow each other in
// one direction of a connection.
func Contains(segments []Segment, text string) bool {
	needle := []byte(text)
	tails := map[[2]netip.AddrPort][]byte{}
	for _, s := range segments {
		ends := [2]netip.AddrPort{s.Source, s.Destination}
		joined := append(slices.Clone(tails[ends]), s.Payload...)
		if bytes.Contains(joined, needle) {
			return true
		}
		tails[ends] = joined[max(0, len(joined)-len(needle)):]
	}
	return false
}

// TLSVersions counts the ServerHello messages sent from the port, by the version that they chose
// (0x0304 is TLS 1.3).
func TLSVersions(segments []Segment, port uint16) map[uint16]int {
	versions := map[uint16]int{}
	for _, s := range segments {
		if s.Source.Port() != port {
			continue
		}
		if version, ok := serverHelloVersion(s.Payload); ok {
			versions[version]++
		}
	}
	return versions
}

// serverHelloVersion reads a handshake record that starts with a ServerHello (RFC 8446, sections 4.1.3 and 4.2.1).
func serverHelloVersion(payload []byte) (uint16, bool) {
	const (
		handshakeRecord   = 22
		serverHello       = 2
		supportedVersions = 43
	)
	if len(payload) < 44 || payload[0] != handshakeRecord || payload[5] != serverHello {
		return 0, false
	}
	body := payload[9:] // after the record's 5 and the handshake's 4 bytes of header
	version := binary.BigEndian.Uint16(body[0:2])
	rest := body[34:]
	sessionLength := int(rest[0])
	if len(rest) < 1+sessionLength+5 {
		return 0, false
	}
	extensions := rest[1+sessionLength+3:]
	extensions = extensions[2:]
	for len(extensions) >= 4 {
		kind, length := binary.BigEndian.Uint16(extensions[0:2]), int(binary.BigEndian.Uint16(extensions[2:4]))
		if len(extensions) < 4+length {
			break
		}
		if kind == supportedVersions && length == 2 {
			return binary.BigEndian.Uint16(extensions[4:6]), true
		}
		extensions = extensions[4+length:]
	}
	return version, true
}
