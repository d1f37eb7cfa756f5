package tracing

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// Headers of trace contexts.
const (
	traceParent = "traceparent"
	traceState  = "tracestate"
	b3Single    = "b3"
	b3Trace     = "x-b3-traceid"
	b3Span      = "x-b3-spanid"
	b3Parent    = "x-b3-parentspanid"
	b3Sampled   = "x-b3-sampled"
)

// context is what a request says of the trace that it belongs to.
type context struct {
	trace        [16]byte
	wide         bool // the id of the trace was written with 128 bits
	span, parent [8]byte
	hasParent    bool
	sampled      bool
	state        string
}

// found is what there was of a context.
type found uint8

const (
	nothing found = iota
	invalid
	valid
)

// readW3C reads traceparent: 00-TRACE-SPAN-FLAGS.
func readW3C(h *httpmsg.Header) (c context, f found) {
	v, ok := h.Get(traceParent)
	if !ok {
		return c, nothing
	}
	var flags, version [1]byte
	if len(v) != 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || !unhex(version[:], v[:2]) || !unhex(c.trace[:], v[3:35]) ||
		!unhex(c.span[:], v[36:52]) || !unhex(flags[:], v[53:]) || c.trace == [16]byte{} || c.span == [8]byte{} {
		return context{}, invalid
	}
	c.wide, c.sampled = true, flags[0]&1 != 0
	c.state, _ = h.Joined(traceState)
	return c, valid
}

// readB3 reads the ids of B3, in one header or in several.
func readB3(h *httpmsg.Header) (c context, f found) {
	if v, ok := h.Get(b3Single); ok {
		return readB3Single(v)
	}
	trace, hasTrace := h.Get(b3Trace)
	span, hasSpan := h.Get(b3Span)
	if !hasTrace || !hasSpan || trace == "" || span == "" {
		return c, nothing
	}
	if !c.setTrace(trace) || !unhex(c.span[:], span) {
		return context{}, invalid
	}
	if parent := h.Value(b3Parent); parent != "" {
		if c.hasParent = unhex(c.parent[:], parent); !c.hasParent {
			return context{}, invalid
		}
	}
	return c, valid
}

// readB3Single reads TRACE-SPAN[-SAMPLED[-PARENT]], or SAMPLED alone, which names no trace.
func readB3Single(v string) (c context, f found) {
	if len(v) == 1 {
		if _, ok := decision(v); ok {
			return c, nothing
		}
		return c, invalid
	}
	trace, rest, _ := strings.Cut(v, "-")
	span, rest, more := strings.Cut(rest, "-")
	if !c.setTrace(trace) || !unhex(c.span[:], span) {
		return context{}, invalid
	}
	if !more {
		return c, valid
	}
	said, parent, more := strings.Cut(rest, "-")
	if len(said) == 16 && !more { // the parent alone
		parent, more = said, true
	} else if _, ok := decision(said); !ok {
		return context{}, invalid
	}
	if more {
		if c.hasParent = unhex(c.parent[:], parent); !c.hasParent {
			return context{}, invalid
		}
	}
	return c, valid
}

// decision reads the sampling state of B3: 1, 0, or d for debug.
func decision(v string) (sampled, ok bool) {
	switch v {
	case "1", "d":
		return true, true
	case "0":
		return false, true
	}
	return false, false
}

// saidB3 is what B3 says of sampling, if anything.
func saidB3(h *httpmsg.Header) (sampled, ok bool) {
	if v, found := h.Get(b3Single); found {
		if len(v) > 1 {
			_, v, _ = strings.Cut(v, "-")
			_, v, _ = strings.Cut(v, "-")
			v, _, _ = strings.Cut(v, "-")
		}
		return decision(v)
	}
	v, ok := h.Get(b3Sampled)
	return v == "1" || v == "true", ok
}

func (c *context) setTrace(v string) bool {
	switch len(v) {
	case 16:
		return unhex(c.trace[8:], v)
	case 32:
		c.wide = true
		return unhex(c.trace[:], v)
	}
	return false
}

// unhex fills dst; false says that v is something else.
func unhex(dst []byte, v string) bool {
	if len(v) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := nibble(v[2*i]), nibble(v[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

func appendHex(dst, id []byte) []byte {
	const digits = "0123456789abcdef"
	for _, b := range id {
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}
