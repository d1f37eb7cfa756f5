package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Header is what a proxy says of the connection that it took.
type Header struct {
	// Source and Destination are of the proxy's client; not valid when the connection is the proxy's own, or of no kind that we know.
	Source, Destination netip.AddrPort
}

// Version is that of the protocol.
type Version uint8

// The versions.
const (
	V1 Version = 1 + iota // a line of text
	V2                    // binary
)

// signature begins a header of version 2; the first bytes of version 1 are text.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	prefix1   = "PROXY "
	// maxLine is how long a header of version 1 may be.
	maxLine = 107
	// fixed is the part of version 2 that is always there.
	fixed = 16
	// shortest is what every header has at least: there is more to both, so that nothing that follows is read.
	shortest = len(signature)
)

// Commands and families of version 2.
const (
	commandLocal, commandProxy = 0x20, 0x21
	familyTCP4, familyTCP6     = 0x11, 0x21
	length4, length6           = 12, 36
)

// ErrMissing is a connection that does not begin with a header.
var ErrMissing = errors.New("the connection does not begin with a PROXY header")

// Append adds the header in a version. A header without a source says that the connection is the proxy's own.
func (h Header) Append(b []byte, v Version) []byte {
	if v == V1 {
		return h.appendV1(b)
	}
	return h.appendV2(b)
}

// plain are the addresses in one family; ok is false when there are none to tell.
func (h Header) plain() (source, destination netip.AddrPort, ok bool) {
	if !h.Source.IsValid() || !h.Destination.IsValid() {
		return h.Source, h.Destination, false
	}
	a, b := h.Source.Addr().Unmap().WithZone(""), h.Destination.Addr().Unmap().WithZone("")
	if a.Is4() != b.Is4() {
		a, b = netip.AddrFrom16(a.As16()), netip.AddrFrom16(b.As16())
	}
	return netip.AddrPortFrom(a, h.Source.Port()), netip.AddrPortFrom(b, h.Destination.Port()), true
}

func (h Header) appendV1(b []byte) []byte {
	source, destination, ok := h.plain()
	if !ok {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	family := "TCP6 "
	if source.Addr().Is4() {
		family = "TCP4 "
	}
	b = append(append(b, prefix1...), family...)
	b = append(source.Addr().AppendTo(b), ' ')
	b = append(destination.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(source.Port()), 10), ' ')
	return append(strconv.AppendUint(b, uint64(destination.Port()), 10), "\r\n"...)
}

func (h Header) appendV2(b []byte) []byte {
	source, destination, ok := h.plain()
	b = append(b, signature...)
	if !ok {
		return append(b, commandLocal, 0, 0, 0)
	}
	if source.Addr().Is4() {
		b = append(b, commandProxy, familyTCP4, 0, length4)
	} else {
		b = append(b, commandProxy, familyTCP6, 0, length6)
	}
	b = append(append(b, source.Addr().AsSlice()...), destination.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, destination.Port())
}

// Read takes a header, and not one byte more, from the beginning of a connection. The caller bounds the time that it may take.
func Read(r io.Reader) (Header, error) {
	b := make([]byte, maxLine)
	if n, err := io.ReadFull(r, b[:shortest]); err != nil {
		if n > 0 && !begins(b[:n]) {
			return Header{}, ErrMissing
		}
		return Header{}, fmt.Errorf("read a PROXY header: %w", err)
	}
	switch {
	case string(b[:shortest]) == signature:
		return readV2(r, b[:fixed])
	case bytes.HasPrefix(b, []byte(prefix1)):
		return readV1(r, b)
	}
	return Header{}, ErrMissing
}

// begins is whether these may be the first bytes of a header.
func begins(b []byte) bool {
	return strings.HasPrefix(signature, string(b)) || strings.HasPrefix(prefix1, string(b[:min(len(b), len(prefix1))]))
}

// readV1 reads to the end of the line. It is short and comes once, so that single bytes do.
func readV1(r io.Reader, b []byte) (Header, error) {
	for n := shortest; n < maxLine; n++ {
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return Header{}, fmt.Errorf("read a PROXY header: %w", err)
		}
		if b[n] == '\n' {
			if b[n-1] != '\r' {
				break
			}
			return parseLine(string(b[len(prefix1) : n-1]))
		}
	}
	return Header{}, errors.New("read a PROXY header: the line does not end")
}

// parseLine reads what comes after PROXY.
func parseLine(line string) (Header, error) {
	family, rest, _ := strings.Cut(line, " ")
	if family == "UNKNOWN" {
		return Header{}, nil // the rest is to be ignored
	}
	parts := strings.Split(rest, " ")
	if family != "TCP4" && family != "TCP6" || len(parts) != 4 {
		return Header{}, fmt.Errorf("read a PROXY header: %q is none", prefix1+line)
	}
	source, err := endpoint(family, parts[0], parts[2])
	if err != nil {
		return Header{}, err
	}
	destination, err := endpoint(family, parts[1], parts[3])
	return Header{source, destination}, err
}

func endpoint(family, address, port string) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Zone() != "" || ip.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, fmt.Errorf("read a PROXY header: %q is no address of %s", address, family)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port[0] == '+' || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, fmt.Errorf("read a PROXY header: %q is no port", port)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

// readV2 reads what follows the signature, which is at the beginning of b.
func readV2(r io.Reader, b []byte) (Header, error) {
	if _, err := io.ReadFull(r, b[shortest:]); err != nil {
		return Header{}, fmt.Errorf("read a PROXY header: %w", err)
	}
	command, family, length := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	want := 0
	switch {
	case command == commandLocal:
	case command != commandProxy:
		return Header{}, fmt.Errorf("read a PROXY header: %#x is no version and command", command)
	case family == familyTCP4:
		want = length4
	case family == familyTCP6:
		want = length6
	}
	if length < want {
		return Header{}, fmt.Errorf("read a PROXY header: %d bytes are too few for its addresses", length)
	}
	var own [length6]byte
	if _, err := io.ReadFull(r, own[:want]); err != nil {
		return Header{}, fmt.Errorf("read a PROXY header: %w", err)
	}
	// Values that proxies add, and addresses of other kinds.
	if _, err := io.CopyN(io.Discard, r, int64(length-want)); err != nil {
		return Header{}, fmt.Errorf("read a PROXY header: %w", err)
	}
	if want == 0 {
		return Header{}, nil
	}
	n := (want - 4) / 2
	source, _ := netip.AddrFromSlice(own[:n])
	destination, _ := netip.AddrFromSlice(own[n : 2*n])
	return Header{
		netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(own[2*n:])),
		netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(own[2*n+2:])),
	}, nil
}
