package h2

import "strings"

// HeaderField is one decoded field; pseudo-headers start with ':'.
type HeaderField struct{ Name, Value string }

// HeaderDecoder decodes the header blocks of one direction of a connection, in order of arrival.
type HeaderDecoder struct {
	dec   decompressor
	limit int  // SETTINGS_MAX_HEADER_LIST_SIZE
	body  bool // a regular field was seen
}

// NewHeaderDecoder returns a decoder that holds at most maxList bytes per block, counted as the protocol
// counts (name + value + 32 for each field).
func NewHeaderDecoder(maxList int) *HeaderDecoder {
	return &HeaderDecoder{dec: newDecompressor(maxList), limit: maxList}
}

// ErrHeaderListTooLarge is the Reason of the stream error for a block over the limit; a server answers 431.
const ErrHeaderListTooLarge = "header list too large"

// Decode decodes one block. The fields are valid until the next call, their strings for ever. A StreamError
// means the block is malformed, but the compression state is intact.
func (d *HeaderDecoder) Decode(id uint32, block []byte) ([]HeaderField, error) {
	if err := d.dec.decode(block); err != nil {
		return nil, ConnError{CompressionError, err.Error()}
	}
	if d.dec.size > d.limit {
		return nil, StreamError{id, EnhanceYourCalm, ErrHeaderListTooLarge}
	}
	clear(d.dec.list)
	d.dec.list, d.body = d.dec.list[:0], false
	for i := range d.dec.fields {
		f := &d.dec.fields[i]
		if why := d.check(f.name, f.value); why != "" {
			return nil, StreamError{id, ProtocolError, why}
		}
		d.dec.list = append(d.dec.list, HeaderField{f.name, f.value})
	}
	return d.dec.list, nil
}

// Rest gives back memory that only decoding needs. The fields of the last block are not valid any more, their strings are.
func (d *HeaderDecoder) Rest() { d.dec.put() }

// check applies RFC 9113 sections 8.2 and 8.3 as far as they concern a single field.
func (d *HeaderDecoder) check(name, value string) string {
	if strings.HasPrefix(name, ":") {
		if d.body {
			return "pseudo-header after a regular field"
		}
		for _, f := range d.dec.list {
			if f.Name == name {
				return "repeated pseudo-header"
			}
		}
	} else {
		d.body = true
		if !validName(name) {
			return "invalid field name"
		}
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return "connection-specific field"
	case "te":
		if value != "trailers" {
			return "te other than trailers"
		}
	}
	if !validValue(value) {
		return "invalid field value"
	}
	return ""
}

// The characters of a field name, a bit for each: those of a token in lower case.
const (
	nameLow  uint64 = 0x3ff6cfa00000000
	nameHigh uint64 = 0x57ffffffc0000000
)

// validName accepts the lower-case tokens of RFC 9110.
func validName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < 64:
			if nameLow>>c&1 == 0 {
				return false
			}
		case c >= 128 || nameHigh>>(c-64)&1 == 0:
			return false
		}
	}
	return s != ""
}

// validValue refuses what RFC 9113 section 8.2.1 does, blanks at either end, and, with RFC 9110 section 5.5, all control characters
// but tabs: HTTP/1 would not take them.
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if isBlank(s[0]) || isBlank(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// Indices of the static table (RFC 7541 appendix A) that the encoder uses for names.
const (
	staticAuthority = 1
	staticMethod    = 2
	staticStatus    = 8
)

// AppendStatus appends the encoded :status field.
func AppendStatus(dst []byte, status int) []byte {
	for i, s := range [...]int{200, 204, 206, 304, 400, 404, 500} {
		if s == status {
			return append(dst, 0x80|byte(staticStatus+i))
		}
	}
	dst = append(dst, staticStatus, 3)
	return append(dst, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
}

// AppendConnect appends the encoded pseudo-headers of a CONNECT request.
func AppendConnect(dst []byte, authority string) []byte {
	dst = append(dst, staticMethod)
	dst = appendString(dst, "CONNECT")
	dst = append(dst, staticAuthority)
	return appendString(dst, authority)
}

// AppendField appends a field as a literal without indexing: the encoder keeps no state, so blocks may be
// encoded in any order. name must be lower-case.
func AppendField(dst []byte, name, value string) []byte {
	dst = append(dst, 0)
	dst = appendString(dst, name)
	return appendString(dst, value)
}

func appendString(dst []byte, s string) []byte {
	dst = appendInt(dst, 0x7f, uint64(len(s)))
	return append(dst, s...)
}

// appendInt appends an HPACK integer whose prefix is all ones in mask; the flag bits are zero.
func appendInt(dst []byte, mask byte, v uint64) []byte {
	if v < uint64(mask) {
		return append(dst, byte(v))
	}
	dst = append(dst, mask)
	for v -= uint64(mask); v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}
