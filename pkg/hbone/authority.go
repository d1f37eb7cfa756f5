package hbone

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Authority is the parsed target of a CONNECT: either an address or a hostname, always with a port.
type Authority struct {
	Addr netip.Addr // valid when the host is an IP address
	Host string     // hostname as sent; "" when Addr is valid
	Port uint16     // never 0
}

// AddrPort returns the address form; invalid for a hostname.
func (a Authority) AddrPort() netip.AddrPort { return netip.AddrPortFrom(a.Addr, a.Port) }

// String formats a as it appears on the wire; IPv6 in brackets.
func (a Authority) String() string {
	if a.Addr.IsValid() {
		return a.AddrPort().String()
	}
	return a.Host + ":" + strconv.Itoa(int(a.Port))
}

// ParseAuthority parses ip:port, [v6]:port and host:port. It is strict: no userinfo, no zone, no empty
// host, a decimal port 1–65535 without sign or leading zero.
func ParseAuthority(s string) (Authority, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return Authority{}, fmt.Errorf("authority %q: no port", s)
	}
	host := s[:i]
	port, err := parsePort(s[i+1:])
	if err != nil {
		return Authority{}, fmt.Errorf("authority %q: %w", s, err)
	}
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" || !strings.HasSuffix(host, "]") {
			return Authority{}, fmt.Errorf("authority %q: bad IPv6 address", s)
		}
		return Authority{Addr: addr, Port: port}, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if !addr.Is4() {
			return Authority{}, fmt.Errorf("authority %q: IPv6 address without brackets", s)
		}
		return Authority{Addr: addr, Port: port}, nil
	}
	if !validHost(host) {
		return Authority{}, fmt.Errorf("authority %q: bad host", s)
	}
	return Authority{Host: host, Port: port}, nil
}

func parsePort(s string) (uint16, error) {
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0, fmt.Errorf("bad port %q", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("bad port %q", s)
	}
	return uint16(n), nil
}

// validHost accepts DNS names as they are used in practice: letters, digits, '-', '_' and dots between
// non-empty labels of at most 63 bytes, 253 in all. A name of digits and dots only is a mistyped address.
func validHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	label, alpha := 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_':
			alpha = true
		case c >= '0' && c <= '9':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0 && alpha
}
