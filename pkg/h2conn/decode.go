package h2conn

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// malformed is why a header block is no message (RFC 9113 section 8.1.1); "" is that it is one.
type malformed string

// pseudo are the pseudo-header fields of a block. The decoder saw to it that none is repeated and none is late.
type pseudo struct {
	method, scheme, authority, path, protocol, status string
	hasScheme, hasPath, hasAuthority, hasProtocol     bool
	host                                              string
	hosts                                             int
}

func (p *pseudo) set(name, value string) bool {
	switch name {
	case ":method":
		p.method = value
	case ":scheme":
		p.scheme, p.hasScheme = value, true
	case ":authority":
		p.authority, p.hasAuthority = value, true
	case ":path":
		p.path, p.hasPath = value, true
	case ":protocol":
		p.protocol, p.hasProtocol = value, true
	case ":status":
		p.status = value
	default:
		return false
	}
	return true
}

// spareFields is how many fields a proxy may add to a message before its memory must grow.
const spareFields = 8

// split sorts the fields of a block into pseudo-header fields, what the codec keeps, and the rest.
func split(fields []h2.HeaderField, h *httpmsg.Head, p *pseudo) malformed {
	h.Reset()
	h.Header.Grow(len(fields) + spareFields)
	cookies := 0
	for _, f := range fields {
		if f.Name[0] == ':' {
			if !p.set(f.Name, f.Value) {
				return "unknown pseudo-header"
			}
			continue
		}
		switch f.Name {
		case "host":
			p.host = f.Value
			p.hosts++
		case "content-length":
			n, ok := parseLength(f.Value)
			if !ok || h.ContentLength >= 0 {
				return "bad content-length"
			}
			h.ContentLength = n
		case "cookie":
			cookies++
			h.Header.Add(f.Name, f.Value)
		default:
			h.Header.Add(f.Name, f.Value)
		}
	}
	if cookies > 1 {
		joinCookies(&h.Header)
	}
	return ""
}

// joinCookies undoes the crumbling of cookies (RFC 9113 section 8.2.3).
func joinCookies(h *httpmsg.Header) {
	var all []string
	for k, v := range h.All() {
		if k == "cookie" {
			all = append(all, v)
		}
	}
	h.Set("cookie", strings.Join(all, "; "))
}

func parseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// parseRequest makes a request of a header block; end says that it has no body, anyPath that the path may be none of a URI.
func parseRequest(fields []h2.HeaderField, h *httpmsg.Head, end, anyPath bool) malformed {
	var p pseudo
	if bad := split(fields, h, &p); bad != "" {
		return bad
	}
	switch {
	case p.status != "":
		return ":status in a request"
	case !isToken(p.method):
		return "bad :method"
	case end && h.ContentLength > 0:
		return "content-length without a body"
	}
	h.Version, h.Method, h.Scheme, h.Authority, h.Path = httpmsg.HTTP2, p.method, p.scheme, p.authority, p.path
	if bad := p.checkAuthority(h); bad != "" {
		return bad
	}
	if h.Method == "CONNECT" && !p.hasProtocol {
		if p.hasScheme || p.hasPath || h.Authority == "" {
			return "bad CONNECT"
		}
		return ""
	}
	if bad := p.checkTarget(h, anyPath); bad != "" {
		return bad
	}
	if p.hasProtocol {
		if h.Method != "CONNECT" || !isToken(p.protocol) {
			return "bad :protocol"
		}
		h.Method, h.Upgrade = "GET", strings.ToLower(p.protocol)
	}
	if v, ok := h.Header.Get("expect"); ok && strings.EqualFold(v, "100-continue") {
		h.Header.Del("expect")
		h.Expects = !end
	}
	return ""
}

// checkAuthority takes host for the authority if there is no other, and suffers no two that differ.
func (p *pseudo) checkAuthority(h *httpmsg.Head) malformed {
	switch {
	case p.hosts > 1, p.hosts == 1 && p.hasAuthority && !strings.EqualFold(p.host, p.authority):
		return "contradicting authorities"
	case p.hosts == 1:
		h.Authority = p.host
	}
	if !validAuthority(h.Authority) {
		return "bad :authority"
	}
	return ""
}

func (p *pseudo) checkTarget(h *httpmsg.Head, anyPath bool) malformed {
	switch {
	case !isToken(p.scheme):
		return "bad :scheme"
	case p.path == "*" && h.Method == "OPTIONS":
	case p.path == "":
		return "bad :path"
	case p.path[0] != '/' && (!anyPath || p.scheme == "http" || p.scheme == "https"):
		return "bad :path"
	}
	for i := range len(p.path) {
		if c := p.path[i]; c <= ' ' || c == 0x7f || c > 0x7f && !anyPath {
			return "bad :path"
		}
	}
	return ""
}

// parseResponse makes a response, interim or final, of a header block.
func parseResponse(fields []h2.HeaderField, h *httpmsg.Head, end bool) malformed {
	var p pseudo
	if bad := split(fields, h, &p); bad != "" {
		return bad
	}
	if p.method != "" || p.hasScheme || p.hasPath || p.hasAuthority || p.hasProtocol {
		return "request pseudo-header in a response"
	}
	n, ok := parseLength(p.status)
	if !ok || len(p.status) != 3 || n < 100 || n == 101 || n < 200 && end {
		return "bad :status"
	}
	h.Version, h.Status = httpmsg.HTTP2, int(n)
	return ""
}

// parseTrailer makes a trailer section of a header block.
func parseTrailer(fields []h2.HeaderField) (*httpmsg.Header, malformed) {
	if len(fields) == 0 {
		return nil, ""
	}
	h := &httpmsg.Header{}
	for _, f := range fields {
		switch {
		case f.Name[0] == ':':
			return nil, "pseudo-header in a trailer"
		case f.Name == "host" || f.Name == "content-length": // have no say there
		default:
			h.Add(f.Name, f.Value)
		}
	}
	return h, ""
}

// The characters of a token (RFC 9110 section 5.6.2), a bit for each.
const (
	tokenLow  uint64 = 0x3ff6cfa00000000
	tokenHigh uint64 = 0x57ffffffc7fffffe
)

// The characters of a host and port, a bit for each: nothing that could end it, and no user.
const (
	authorityLow  uint64 = 0x2fff7ff200000000
	authorityHigh uint64 = 0x47fffffeaffffffe
)

// consists is whether s is not empty and has only characters of the set.
func consists(s string, low, high uint64) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < 64:
			if low>>c&1 == 0 {
				return false
			}
		case c >= 128 || high>>(c-64)&1 == 0:
			return false
		}
	}
	return s != ""
}

func isToken(s string) bool { return consists(s, tokenLow, tokenHigh) }

func validAuthority(s string) bool { return consists(s, authorityLow, authorityHigh) }
