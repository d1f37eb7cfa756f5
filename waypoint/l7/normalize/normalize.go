// Package normalize makes the path of a request canonical as Envoy does, so that what policies and routes compare is what the
// application behind will see.
package normalize

import (
	"strings"
	"unicode/utf8"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// Escaped is what happens to a path with an escaped slash: %2F, %5C in either case.
type Escaped uint8

// The actions.
const (
	EscapedKeep Escaped = iota
	EscapedReject
	EscapedRedirect // to the path with the slashes unescaped
	EscapedForward  // with the slashes unescaped
)

// Options are those of an HttpConnectionManager.
type Options struct {
	Canonical    bool // normalize_path
	MergeSlashes bool
	Escaped      Escaped
}

// Result is what to do with the request.
type Result uint8

// The results.
const (
	OK Result = iota
	Reject
	Redirect
)

// Path returns the path (with its query) after normalisation. A fragment is refused: whoever sends one speaks no HTTP.
func Path(path string, o Options, mem *exchange.Scratch) (string, Result) {
	if path == "" {
		return path, OK
	}
	end := len(path)
	if i := strings.IndexByte(path, '?'); i >= 0 {
		end = i
	}
	if strings.IndexByte(path, '#') >= 0 {
		return path, Reject
	}
	p, query := path[:end], path[end:]
	res := OK
	if o.Escaped != EscapedKeep {
		if u := unescapeSlashes(p, mem); u != p {
			switch o.Escaped {
			case EscapedReject:
				return path, Reject
			case EscapedRedirect:
				res = Redirect
			}
			p = u
		}
	}
	if o.Canonical && !isCanonical(p) {
		c, ok := canonical(p, mem)
		if !ok {
			return path, Reject
		}
		p = c
	}
	if o.MergeSlashes && strings.Contains(p, "//") {
		p = mergeSlashes(p, mem)
	}
	switch {
	case len(p) == end && p == path[:end]:
		return path, res
	case query == "":
		return p, res
	}
	return mem.Concat(p, query), res
}

func hexValue(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// unhex decodes %XX at the start of s.
func unhex(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, ok1 := hexValue(s[1])
	lo, ok2 := hexValue(s[2])
	return hi<<4 | lo, ok1 && ok2
}

func unescapeSlashes(p string, mem *exchange.Scratch) string {
	if strings.IndexByte(p, '%') < 0 {
		return p
	}
	b, changed := mem.Bytes(), false
	for i := 0; i < len(p); i++ {
		if c, ok := unhex(p[i:]); ok && (c == '/' || c == '\\') {
			b = append(b, c)
			i += 2
			changed = true
			continue
		}
		b = append(b, p[i])
	}
	if !changed {
		return p
	}
	return mem.Keep(b)
}

func mergeSlashes(p string, mem *exchange.Scratch) string {
	b := mem.Bytes()
	for i := range len(p) {
		if p[i] == '/' && i > 0 && p[i-1] == '/' {
			continue
		}
		b = append(b, p[i])
	}
	return mem.Keep(b)
}

// class of a byte in a path.
type class uint8

const (
	pass    class = iota
	escape        // becomes %XX
	special       // . % \ /
	invalid
)

func classOf(c byte) class {
	switch c {
	case '.', '%', '\\', '/':
		return special
	case '"', '<', '>', '^', '`', '{', '|', '}', ' ':
		return escape
	}
	if c < 0x20 || c == 0x7f {
		return invalid
	}
	if c > 0x7f {
		return escape // only HTTP/2 has them, and only where that is asked for
	}
	return pass
}

// isCanonical is whether canonical would surely change nothing.
func isCanonical(p string) bool {
	for i := range len(p) {
		switch classOf(p[i]) {
		case pass:
		case special:
			if p[i] == '/' || (p[i] == '.' && i > 0 && p[i-1] != '/') {
				continue
			}
			return false
		default:
			return false
		}
	}
	return p != "" && p[0] == '/'
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

const hexDigits = "0123456789ABCDEF"

// canonical resolves dot segments, plain or escaped; decodes what need not be escaped; escapes what must be; and turns backslashes
// into slashes. It refuses a NUL and bytes that are not printable ASCII.
func canonical(p string, mem *exchange.Scratch) (string, bool) {
	if p == "" || p[0] != '/' && p[0] != '\\' || !utf8.ValidString(p) {
		return p, false
	}
	b := append(mem.Bytes(), '/')
	segment := len(b) // where the current segment begins
	for i := 1; i < len(p); i++ {
		c := p[i]
		switch classOf(c) {
		case invalid:
			return p, false
		case escape:
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
			continue
		case pass:
			b = append(b, c)
			continue
		}
		switch c {
		case '.':
			b = append(b, c)
		case '%':
			v, ok := unhex(p[i:])
			switch {
			case ok && v == 0:
				return p, false
			case ok && isUnreserved(v):
				b = append(b, v)
				i += 2
			default:
				b = append(b, c)
			}
		default: // a slash of either kind
			b, segment = endSegment(b, segment, true)
		}
	}
	b, _ = endSegment(b, segment, false)
	return mem.Keep(b), true
}

// endSegment resolves the segment b[from:], which a slash follows or the end of the path.
func endSegment(b []byte, from int, slash bool) ([]byte, int) {
	switch string(b[from:]) {
	case ".":
		return b[:from], from
	case "..":
		b = b[:from]
		if from > 1 {
			b = b[:from-1]
			for b[len(b)-1] != '/' {
				b = b[:len(b)-1]
			}
		}
		return b, len(b)
	}
	if slash {
		b = append(b, '/')
	}
	return b, len(b)
}
