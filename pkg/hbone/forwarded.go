package hbone

import (
	"net/netip"
	"strings"
)

// FormatForwarded formats the forwarded header: the original client, and the service hostname the
// request was addressed to ("" when it was addressed to a workload).
func FormatForwarded(client netip.AddrPort, host string) string {
	out := make([]byte, 0, 64+len(host))
	out = append(out, `for="`...)
	out = client.AppendTo(out)
	out = append(out, '"')
	if host != "" {
		out = append(out, ";host="...)
		out = append(out, host...)
	}
	return string(out)
}

// ParseForwarded returns client and host of the first element of a forwarded header; what is missing or
// malformed is zero. Both are claims of the peer: good for telemetry only.
func ParseForwarded(s string) (client netip.AddrPort, host string) {
	s, _, _ = strings.Cut(s, ",")
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, ";")
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok {
			continue
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		switch strings.ToLower(key) {
		case "for":
			if ap, err := netip.ParseAddrPort(value); err == nil {
				client = ap
			}
		case "host":
			host = value
		}
	}
	return client, host
}
