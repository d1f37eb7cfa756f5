package h1

import (
	"bytes"
	"strings"
	"unsafe"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// parser parses heads into memory that it reuses. What it says of a head is valid until the next one.
type parser struct {
	maxFields int
	unfold    bool // fields of several lines are one
	count     int

	host       string
	hosts      int
	length     int64 // -1: not said
	chunked    bool
	encodings  int
	close      bool // connection: close
	keepAlive  bool // connection: keep-alive
	upgrade    bool // connection: upgrade
	protocol   string
	expects    bool
	connection []string // values of the Connection fields
}

func (p *parser) reset() {
	*p = parser{maxFields: p.maxFields, unfold: p.unfold, length: -1, connection: p.connection[:0]}
}

// text is b without a copy: it is valid as long as b is.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// fields parses field lines, each of which ends in CRLF, up to the empty line. Those that concern framing and the connection go to
// p, the others to h.
func (p *parser) fields(block []byte, h *httpmsg.Header) error {
	for {
		end := bytes.IndexByte(block, '\n')
		line := block[:end-1]
		block = block[end+1:]
		if len(line) == 0 {
			return p.hop(h)
		}
		if p.count++; p.count > p.maxFields {
			return &Error{431, "too many header fields"}
		}
		if p.unfold {
			line, block = unfolded(line, block)
		}
		key, value, err := splitField(line)
		if err != nil {
			return err
		}
		mine, err := p.own(key, value)
		if err != nil {
			return err
		}
		if !mine {
			h.Add(key, value)
		}
	}
}

// unfolded joins the line with those after it that continue it, in place: what breaks them goes, what they begin with stays. rest
// follows the line's CRLF.
func unfolded(line, rest []byte) (field, after []byte) {
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		end := bytes.IndexByte(rest, '\n')
		line = append(line, rest[:end-1]...) // over its own CRLF
		rest = rest[end+1:]
	}
	return line, rest
}

// splitField takes a field line apart, lowers the key in place and refuses folding and blanks around the key.
func splitField(line []byte) (key, value string, err error) {
	n := lowerToken(line)
	if n == 0 || n == len(line) || line[n] != ':' {
		return "", "", bad("malformed header field name")
	}
	v := trim(line[n+1:])
	if !validValue(v) {
		return "", "", bad("control character in a header field")
	}
	return text(line[:n]), text(v), nil
}

// own takes the fields that the codec keeps to itself.
func (p *parser) own(key, value string) (mine bool, err error) {
	switch key {
	case "host":
		p.hosts++
		p.host = value
		if p.hosts > 1 {
			err = bad("several host fields")
		}
	case "content-length":
		if p.length >= 0 {
			return true, bad("several content-length fields")
		}
		p.length, err = parseLength(value)
	case "transfer-encoding":
		p.encodings++
		switch {
		case p.encodings > 1:
			err = bad("several transfer-encoding fields")
		case equalFold(value, "chunked"):
			p.chunked = true
		default:
			err = &Error{501, "transfer-encoding other than chunked"}
		}
	case "connection":
		p.connection = append(p.connection, value)
	case "upgrade":
		p.protocol = value
	case "te":
		// Hop by hop, save that gRPC asks for trailers end to end.
		return !hasToken(value, "trailers"), nil
	case "expect":
		p.expects = equalFold(value, "100-continue")
		return p.expects, nil // others are the server's business
	case "keep-alive", "proxy-connection", "http2-settings":
	default:
		return false, nil
	}
	return true, err
}

// parseLength accepts digits and nothing else.
func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 {
		return -1, bad("malformed content-length")
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1, bad("malformed content-length")
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, nil
}

// hop evaluates the Connection fields and takes out what they nominate.
func (p *parser) hop(h *httpmsg.Header) error {
	for _, value := range p.connection {
		for option := range strings.SplitSeq(value, ",") {
			option = strings.Trim(option, " \t")
			switch {
			case option == "":
			case equalFold(option, "close"):
				p.close = true
			case equalFold(option, "keep-alive"):
				p.keepAlive = true
			case equalFold(option, "upgrade"):
				p.upgrade = true
			case equalFold(option, "te"):
			default:
				if err := nominate(h, strings.ToLower(option)); err != nil {
					return err
				}
			}
		}
	}
	if v, ok := h.Get("te"); ok && v != "trailers" {
		h.Set("te", "trailers")
	}
	return nil
}

// nominate removes a field that Connection names. Those that say where a request came from or goes to can't be taken out that way.
func nominate(h *httpmsg.Header, key string) error {
	switch key {
	case "host", "content-length", "transfer-encoding", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
		return bad("connection field names " + key)
	}
	h.Del(key)
	return nil
}

// hasToken is whether a list has an element whose first part (before parameters) is token.
func hasToken(list, token string) bool {
	for e := range strings.SplitSeq(list, ",") {
		e, _, _ = strings.Cut(e, ";")
		if equalFold(strings.Trim(e, " \t"), token) {
			return true
		}
	}
	return false
}

// framing checks what the fields together say about the length of the body.
func (p *parser) framing(v httpmsg.Version) error {
	switch {
	case p.chunked && p.length >= 0:
		return bad("both transfer-encoding and content-length")
	case p.chunked && v == httpmsg.HTTP10:
		return bad("transfer-encoding in HTTP/1.0")
	}
	return nil
}

// persists is whether the peer lets the connection stay open after this exchange.
func (p *parser) persists(v httpmsg.Version) bool {
	if v == httpmsg.HTTP10 {
		return p.keepAlive && !p.close
	}
	return !p.close
}
