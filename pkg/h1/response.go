package h1

import (
	"bytes"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// response parses the head of a response, whose lines all end in CRLF. The head aliases block.
func (p *parser) response(block []byte, h *httpmsg.Head) error {
	p.reset()
	h.Reset()
	end := bytes.IndexByte(block, '\n')
	line := block[:end-1]
	if len(line) < 12 || line[8] != ' ' || len(line) > 12 && line[12] != ' ' || !validValue(line) {
		return bad("malformed status line")
	}
	v, err := parseVersion(text(line[:8]))
	if err != nil {
		return err
	}
	status := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return bad("malformed status")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return bad("malformed status")
	}
	h.Version, h.Status = v, status
	if err := p.fields(block[end+1:], &h.Header); err != nil {
		return err
	}
	if err := p.framing(v); err != nil {
		return err
	}
	if p.chunked && (status < 200 || status == 204) {
		return bad("transfer-encoding where there is no body")
	}
	h.ContentLength = p.length
	if status == 101 {
		h.Upgrade = p.protocol
	}
	return nil
}

// hasBody is whether a response to method may have a body (RFC 9112 section 6.3).
func hasBody(method string, status int) bool {
	switch {
	case status < 200, status == 204, status == 304, method == "HEAD", method == "CONNECT" && status < 300:
		return false
	}
	return true
}
