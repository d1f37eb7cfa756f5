package h2conn

import (
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// The encoder keeps no state: names and some whole fields are those of the static table (RFC 7541 appendix A), values are literals
// that are not indexed.

// Indices of whole fields and of names in the static table.
const (
	staticAuthority     = 1
	staticGET           = 2
	staticPOST          = 3
	staticPathRoot      = 4
	staticPathIndex     = 5
	staticHTTP          = 6
	staticHTTPS         = 7
	staticGzipDeflate   = 16
	staticContentLength = 28
)

// staticName is the index of a name in the static table, 0 if it is not there.
func staticName(name string) uint64 {
	switch name {
	case "accept-charset":
		return 15
	case "accept-encoding":
		return 16
	case "accept-language":
		return 17
	case "accept-ranges":
		return 18
	case "accept":
		return 19
	case "access-control-allow-origin":
		return 20
	case "age":
		return 21
	case "allow":
		return 22
	case "authorization":
		return 23
	case "cache-control":
		return 24
	case "content-disposition":
		return 25
	case "content-encoding":
		return 26
	case "content-language":
		return 27
	case "content-length":
		return 28
	case "content-location":
		return 29
	case "content-range":
		return 30
	case "content-type":
		return 31
	case "cookie":
		return 32
	case "date":
		return 33
	case "etag":
		return 34
	case "expect":
		return 35
	case "expires":
		return 36
	case "from":
		return 37
	case "host":
		return 38
	}
	return staticNameRest(name)
}

func staticNameRest(name string) uint64 {
	switch name {
	case "if-match":
		return 39
	case "if-modified-since":
		return 40
	case "if-none-match":
		return 41
	case "if-range":
		return 42
	case "if-unmodified-since":
		return 43
	case "last-modified":
		return 44
	case "link":
		return 45
	case "location":
		return 46
	case "max-forwards":
		return 47
	case "proxy-authenticate":
		return 48
	case "proxy-authorization":
		return 49
	case "range":
		return 50
	case "referer":
		return 51
	case "refresh":
		return 52
	case "retry-after":
		return 53
	case "server":
		return 54
	case "set-cookie":
		return 55
	case "strict-transport-security":
		return 56
	case "transfer-encoding":
		return 57
	case "user-agent":
		return 58
	case "vary":
		return 59
	case "via":
		return 60
	case "www-authenticate":
		return 61
	}
	return 0
}

func appendInt(dst []byte, first, mask byte, v uint64) []byte {
	if v < uint64(mask) {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|mask)
	for v -= uint64(mask); v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

func appendString(dst []byte, s string) []byte {
	dst = appendInt(dst, 0, 0x7f, uint64(len(s)))
	return append(dst, s...)
}

// appendNamed appends a field whose name is in the static table. Secrets are marked as never to be indexed by anybody.
func appendNamed(dst []byte, name uint64, value string) []byte {
	first := byte(0)
	switch name {
	case 23, 32, 49, 55:
		first = 0x10
	}
	return appendString(appendInt(dst, first, 0x0f, name), value)
}

func appendField(dst []byte, key, value string) []byte {
	if n := staticName(key); n != 0 {
		if n == staticGzipDeflate && value == "gzip, deflate" {
			return append(dst, 0x80|staticGzipDeflate)
		}
		return appendNamed(dst, n, value)
	}
	return appendString(appendString(append(dst, 0), key), value)
}

// appendFields appends what a header holds, but nothing that belongs to HTTP/1 and nothing that is no field.
func appendFields(dst []byte, h *httpmsg.Header) []byte {
	for i := range h.Fields() {
		if f := &h.Fields()[i]; sendable(f.Key, f.Value) {
			dst = appendField(dst, f.Key, f.Value)
		}
	}
	return dst
}

// blockSize is about how long the encoding of a head becomes.
func blockSize(h *httpmsg.Head) int {
	return 64 + len(h.Method) + len(h.Path) + len(h.Authority) + len(h.Scheme) + len(h.Upgrade) + fieldsSize(&h.Header)
}

func fieldsSize(h *httpmsg.Header) int {
	n := 0
	for i := range h.Fields() {
		f := &h.Fields()[i]
		n += len(f.Key) + len(f.Value) + 8
	}
	return n
}

// sendable is whether a field may go into a header block: RFC 9113 section 8.2.
func sendable(key, value string) bool {
	switch key {
	case "", "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings", "host", "content-length":
		return false
	case "te":
		return value == "trailers"
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' || c == ':' {
			return false
		}
	}
	return strings.IndexByte(value, '\n') < 0 && strings.IndexByte(value, '\r') < 0 && strings.IndexByte(value, 0) < 0
}

func appendLength(dst []byte, n int64) []byte {
	if n < 0 {
		return dst
	}
	dst = appendInt(dst, 0, 0x0f, staticContentLength)
	at := len(dst)
	dst = strconv.AppendInt(append(dst, 0), n, 10)
	dst[at] = byte(len(dst) - at - 1)
	return dst
}

// appendRequest encodes the head of a request.
func appendRequest(dst []byte, h *httpmsg.Head) []byte {
	plain := h.Method == "CONNECT"
	switch {
	case plain || h.Upgrade != "":
		dst = appendNamed(dst, staticGET, "CONNECT")
	case h.Method == "GET":
		dst = append(dst, 0x80|staticGET)
	case h.Method == "POST":
		dst = append(dst, 0x80|staticPOST)
	default:
		dst = appendNamed(dst, staticGET, h.Method)
	}
	if h.Upgrade != "" && !plain {
		dst = h2.AppendField(dst, ":protocol", h.Upgrade)
	}
	if !plain {
		switch h.Scheme {
		case "", "http":
			dst = append(dst, 0x80|staticHTTP)
		case "https":
			dst = append(dst, 0x80|staticHTTPS)
		default:
			dst = appendNamed(dst, staticHTTP, h.Scheme)
		}
		if h.Path == "/" {
			dst = append(dst, 0x80|staticPathRoot)
		} else {
			dst = appendNamed(dst, staticPathRoot, h.Path)
		}
	}
	if h.Authority != "" {
		dst = appendNamed(dst, staticAuthority, h.Authority)
	}
	dst = appendFields(dst, &h.Header)
	if h.Expects {
		dst = appendField(dst, "expect", "100-continue")
	}
	if h.Upgrade == "" && !plain {
		dst = appendLength(dst, h.ContentLength)
	}
	return dst
}

// appendResponse encodes the head of a response.
func appendResponse(dst []byte, h *httpmsg.Head, status int) []byte {
	dst = appendFields(h2.AppendStatus(dst, status), &h.Header)
	if status >= 200 && status != 204 {
		dst = appendLength(dst, h.ContentLength)
	}
	return dst
}
