package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// stringMatcher reads the four forms of a value: exact, prefix*, *suffix, and * for anything but nothing.
func stringMatcher(value string, ignoreCase bool) *matcherv3.StringMatcher {
	switch {
	case value == "*":
		return regexMatcher(".+")
	case strings.HasPrefix(value, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: value[1:]}, IgnoreCase: ignoreCase}
	case strings.HasSuffix(value, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: value[:len(value)-1]}, IgnoreCase: ignoreCase}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}, IgnoreCase: ignoreCase}
}

// regexMatcher matches a whole string.
func regexMatcher(expr string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expr}}}
}

// globRegex is a regular expression for one segment of a URI in which * stands for anything.
func globRegex(value string) string {
	if value == "*" {
		return "[^/]+"
	}
	return strings.ReplaceAll(regexp.QuoteMeta(value), `\*`, "[^/]*")
}

// cidrRange reads an address or a block.
func cidrRange(value string) (*corev3.CidrRange, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		ip, err := netip.ParseAddr(value)
		if err != nil || ip.Zone() != "" {
			return nil, fmt.Errorf("%q is neither an IP address nor a block of them", value)
		}
		prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	return &corev3.CidrRange{AddressPrefix: prefix.Masked().Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(prefix.Bits()))}, nil
}

// isHeaderName is RFC 9110's token, or an HTTP/2 pseudo-header.
func isHeaderName(name string) bool {
	name = strings.TrimPrefix(name, ":")
	if name == "" {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}
