package l7

import (
	"net/netip"
	"strconv"
	"strings"
)

// validReferer is whether the value is a URL without user and fragment, or the rest of one; others do not go upstream.
func validReferer(v string) bool {
	if scheme, rest, ok := strings.Cut(v, "://"); ok && alphabetic(scheme) {
		return validAbsolute(rest)
	}
	slash := false
	for i := range len(v) {
		switch c := v[i]; {
		case c == '/':
			slash = true
		case c == ':':
			if !slash {
				return false // the first segment would be a scheme
			}
		case !queryCharacter(c):
			return false
		}
	}
	return true
}

// validAbsolute is for what follows the scheme.
func validAbsolute(rest string) bool {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, path := rest[:end], rest[end:]
	host, port := authority, ""
	if strings.HasPrefix(authority, "[") {
		inside, after, ok := strings.Cut(authority[1:], "]")
		if _, err := netip.ParseAddr(inside); !ok || err != nil {
			return false
		}
		host, port = inside, strings.TrimPrefix(after, ":")
		if after != "" && (after[0] != ':' || port == "") {
			return false
		}
	} else if name, number, ok := strings.Cut(authority, ":"); ok {
		if host, port = name, number; port == "" {
			return false
		}
	}
	if host == "" {
		return false
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	}
	for i := range len(host) {
		if c := host[i]; c != ':' && c != '.' && c != '-' && c != '_' && !alphanumeric(c) {
			return false
		}
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

func alphabetic(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return s != ""
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// queryCharacter is whether a query may have the byte as it is.
func queryCharacter(c byte) bool {
	return alphanumeric(c) || strings.IndexByte("!$%&'()*+,-.:;=?@_~/", c) >= 0
}
