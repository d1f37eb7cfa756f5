package tracing

import (
	"encoding/binary"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// Random gives 64 random bits.
type Random interface{ Uint64() uint64 }

// Span is a request's place in a trace. It is immutable once the request is on its way.
type Span struct {
	Config *Config
	Trace  [16]byte
	// Wide is whether the id of the trace has 128 bits.
	Wide       bool
	ID, Parent [8]byte
	HasParent  bool
	Sampled    bool
	// Lost is that what the client says of its trace cannot be read: there are no ids, and nothing is told upstream.
	Lost bool
	// single is whether B3 came in one header, and goes on in one.
	single bool
	// Shared is whether the id is the client's.
	Shared bool
	// State is tracestate as it came; it aliases the request.
	State string
	// Name of the operation.
	Name string
	// Decorated is the name that the response tells; "" is none.
	Decorated string
}

// Begin finds out whether and how a request is traced. operation is the route's, "" for none. It changes the
// request's id, which tells others what was decided, and takes from the head what is meant for us.
func (c *Config) Begin(r *exchange.Info, operation string, rnd Random) *Span {
	s := &Span{Config: c}
	ok := false
	traced := c.decide(r, rnd)
	if c.Provider.Kind == Zipkin {
		ok = s.beginZipkin(r, traced, rnd)
	} else {
		ok = s.beginW3C(r, traced, rnd)
	}
	if !ok {
		s = &Span{Config: c, Lost: true}
	}
	h := &r.Head.Header
	if operation != "" {
		s.Name, s.Decorated = operation, operation
	}
	if c.Egress {
		if s.Decorated != "" {
			h.Set(decorator, s.Decorated)
		}
		return s
	}
	if v, ok := h.Get(decorator); ok {
		if v != "" {
			s.Name, s.Decorated = r.Scratch.Concat(v), ""
		}
		h.Del(decorator)
	}
	return s
}

const decorator = "x-envoy-decorator-operation"

func (s *Span) beginW3C(r *exchange.Info, traced bool, rnd Random) bool {
	parent, f := readW3C(&r.Head.Header)
	switch f {
	case invalid:
		return false
	case valid:
		// As Envoy has it, both have to want it: the caller, and this proxy.
		s.Trace, s.Parent, s.HasParent, s.Sampled, s.State = parent.trace, parent.span, true, parent.sampled && traced, parent.state
	case nothing:
		s.newTrace(rnd)
		s.Sampled = traced
	}
	s.Wide = true
	random(s.ID[:], rnd)
	s.Name = "ingress"
	if s.Config.Egress {
		s.Name = r.Scratch.Concat("egress ", r.Head.Authority)
	}
	return true
}

func (s *Span) beginZipkin(r *exchange.Info, traced bool, rnd Random) bool {
	p, h := &s.Config.Provider, &r.Head.Header
	s.Name = r.Head.Authority
	_, s.single = h.Get(b3Single)
	parent, f := readB3(h)
	sampled, said := saidB3(h)
	if f == nothing && p.w3c {
		if parent, f = readW3C(h); f == valid && !said {
			sampled, said = parent.sampled, true
		}
	}
	if s.Sampled = traced; said {
		s.Sampled = sampled
	}
	switch f {
	case invalid:
		return false
	case nothing:
		s.Wide = p.wide
		s.newTrace(rnd)
		s.ID = [8]byte(s.Trace[8:])
		return true
	case valid:
	}
	s.Trace, s.Wide, s.State = parent.trace, parent.wide, parent.state
	if p.shared && !s.Config.Egress {
		s.ID, s.Parent, s.HasParent, s.Shared = parent.span, parent.parent, parent.hasParent, true
		return true
	}
	s.Parent, s.HasParent = parent.span, true
	random(s.ID[:], rnd)
	return true
}

func (s *Span) newTrace(rnd Random) {
	random(s.Trace[8:], rnd)
	if s.Wide || s.Config.Provider.Kind != Zipkin {
		random(s.Trace[:8], rnd)
	}
}

// random is never all zeros, which is no id.
func random(dst []byte, rnd Random) {
	v := rnd.Uint64()
	for v == 0 {
		v = rnd.Uint64()
	}
	binary.BigEndian.PutUint64(dst, v)
}

// Inject tells the next hop.
func (s *Span) Inject(r *exchange.Info) {
	if s.Config.Silent || s.Lost {
		return
	}
	h := &r.Head.Header
	hex := func(id []byte) string { return r.Scratch.Keep(appendHex(r.Scratch.Bytes(), id)) }
	switch {
	case s.Config.Provider.Kind != Zipkin:
	case s.single:
		h.Set(b3Single, s.b3(r))
	default:
		h.Set(b3Trace, hex(s.traceID()))
		h.Set(b3Span, hex(s.ID[:]))
		if s.HasParent {
			h.Set(b3Parent, hex(s.Parent[:]))
		}
		if h.Set(b3Sampled, "0"); s.Sampled {
			h.Set(b3Sampled, "1")
		}
	}
	if !s.Config.Provider.w3c {
		return
	}
	b := append(r.Scratch.Bytes(), "00-"...)
	b = append(appendHex(b, s.Trace[:]), '-')
	b = append(appendHex(b, s.ID[:]), "-00"...)
	if s.Sampled {
		b[len(b)-1] = '1'
	}
	h.Set(traceParent, r.Scratch.Keep(b))
	if s.State != "" || s.Config.Provider.Kind != Zipkin { // an empty one, too, as Envoy's tracer does
		h.Set(traceState, s.State)
	}
}

// b3 is TRACE-SPAN-SAMPLED[-PARENT].
func (s *Span) b3(r *exchange.Info) string {
	b := append(appendHex(r.Scratch.Bytes(), s.traceID()), '-')
	b = append(appendHex(b, s.ID[:]), "-0"...)
	if s.Sampled {
		b[len(b)-1] = '1'
	}
	if s.HasParent {
		b = appendHex(append(b, '-'), s.Parent[:])
	}
	return r.Scratch.Keep(b)
}

// traceID is the id as it is written.
func (s *Span) traceID() []byte {
	if s.Wide {
		return s.Trace[:]
	}
	return s.Trace[8:]
}

// AppendTrace appends the id of the trace in hexadecimal.
func (s *Span) AppendTrace(dst []byte) []byte { return appendHex(dst, s.traceID()) }

// AppendID appends the id of the span in hexadecimal.
func (s *Span) AppendID(dst []byte) []byte { return appendHex(dst, s.ID[:]) }
