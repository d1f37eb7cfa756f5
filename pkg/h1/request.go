package h1

import (
	"bytes"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// request parses the head of a request, whose lines all end in CRLF. The head aliases block.
func (p *parser) request(block []byte, h *httpmsg.Head, scheme string) error {
	p.reset()
	h.Reset()
	end := bytes.IndexByte(block, '\n')
	line := text(block[:end-1])
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if !knownMethod(method) {
		if version != "" && !strings.HasPrefix(version, "HTTP/") {
			return errNotHTTP
		}
		return bad("unknown method")
	}
	if !validTarget(target) {
		return bad("malformed request target")
	}
	v, err := parseVersion(version)
	if err != nil {
		return err
	}
	h.Version, h.Method, h.Scheme = v, method, scheme
	if err := p.fields(block[end+1:], &h.Header); err != nil {
		return err
	}
	if err := p.framing(v); err != nil {
		return err
	}
	if err := p.authority(h, target); err != nil {
		return err
	}
	if err := p.target(h, target); err != nil {
		return err
	}
	h.ContentLength = p.length
	h.Expects = p.expects && v == httpmsg.HTTP11
	if p.upgrades(h) {
		h.Upgrade = strings.ToLower(p.protocol)
	}
	return nil
}

// upgrades is whether the request asks for another protocol and we heed it: h2c we don't, and a request with a body stays one.
func (p *parser) upgrades(h *httpmsg.Head) bool {
	return p.upgrade && p.protocol != "" && h.Version == httpmsg.HTTP11 && h.Method != "CONNECT" &&
		p.length <= 0 && !p.chunked && !hasToken(p.protocol, "h2c")
}

// knownMethod is whether a method is one of those that HTTP/1 servers in front of others agree on: the registered ones, in capitals.
// What they disagree on can be a request for one and part of a body for another.
func knownMethod(m string) bool {
	switch m {
	case "GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE":
		return true
	case "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY",
		"PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE":
		return true
	}
	return false
}

// What is neither HTTP/1.1 nor HTTP/1.0.
var (
	errVersion   = &Error{505, "unsupported version"}
	errNoVersion = bad("no version") // HTTP/0.9, or half a line; answered without text, as Envoy does
)

func parseVersion(s string) (httpmsg.Version, error) {
	switch {
	case s == "HTTP/1.1":
		return httpmsg.HTTP11, nil
	case s == "HTTP/1.0":
		return httpmsg.HTTP10, nil
	case len(s) == 8 && s[:7] == "HTTP/1." && s[7] >= '2' && s[7] <= '9':
		return httpmsg.HTTP10, nil // whatever it is, it can be answered as that
	case len(s) == 8 && s[:5] == "HTTP/" && s[6] == '.':
		return 0, errVersion
	case s == "":
		return 0, errNoVersion
	}
	return 0, bad("malformed version")
}

// errNoHost is answered without text, as Envoy does.
var errNoHost = bad("no host")

// errNotHTTP is for a line of which nothing is HTTP's, such as a garbled preface of HTTP/2 (RFC 9113 section 3.4). The connection is
// closed without an answer, which the client could not read.
var errNotHTTP = bad("neither a request nor a preface")

// authority takes the host field for the authority. An empty one is none, but it was said; one that makes no sense counts for nothing
// where the target names the authority (see [absolute]).
func (p *parser) authority(h *httpmsg.Head, target string) error {
	switch {
	case p.hosts == 0 && h.Version == httpmsg.HTTP11:
		return errNoHost
	case p.host == "" || validAuthority(p.host):
		h.Authority = p.host
	case h.Method == "CONNECT" || target[0] == '/' || target == "*":
		return bad("malformed host")
	}
	return nil
}

// target reads the four forms of RFC 9112 section 3.2.
func (p *parser) target(h *httpmsg.Head, target string) error {
	switch {
	case h.Method == "CONNECT":
		if !validAuthority(target) || !strings.Contains(target, ":") {
			return bad("malformed target of a CONNECT")
		}
		if p.length > 0 || p.chunked {
			return bad("CONNECT with a body")
		}
		h.Authority, h.Path = target, ""
	case target[0] == '/':
		h.Path = target
	case target == "*":
		if h.Method != "OPTIONS" {
			return bad("target * of another method than OPTIONS")
		}
		h.Path = target
	default:
		return absolute(h, target)
	}
	return nil
}

// absolute reads the form that a client sends to a proxy. Its authority overrides the host field.
func absolute(h *httpmsg.Head, target string) error {
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case ok && equalFold(scheme, "http"):
		h.Scheme = "http"
	case ok && equalFold(scheme, "https"):
		h.Scheme = "https"
	default:
		return bad("malformed request target")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if !validAuthority(rest[:end]) {
		return bad("malformed authority in the request target")
	}
	h.Authority, h.Path = rest[:end], rest[end:]
	if h.Path == "" {
		h.Path = "/" // one that begins otherwise is no path, which is for the handler to say
	}
	return nil
}
