package mutate

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Headers is what one level of a route configuration does to the headers of a message.
type Headers struct {
	remove []string
	add    []headerOp
}

type headerOp struct {
	key       string
	value     Format
	action    corev3.HeaderValueOption_HeaderAppendAction
	keepEmpty bool
}

// Empty is whether nothing is done.
func (h *Headers) Empty() bool { return h == nil || len(h.remove) == 0 && len(h.add) == 0 }

// CompileHeaders compiles one level. kind is "request" or "response", as in the names of the fields.
func CompileHeaders(kind string, add []*corev3.HeaderValueOption, remove []string) (*Headers, error) {
	if len(add) == 0 && len(remove) == 0 {
		return nil, nil
	}
	h := &Headers{}
	for i, name := range remove {
		name = strings.ToLower(name)
		if err := modifiable(name); err != nil {
			return nil, strict.AtIndex(err, kind+"_headers_to_remove", i)
		}
		h.remove = append(h.remove, name)
	}
	for i, p := range add {
		op, err := compileHeaderOp(p)
		if err != nil {
			return nil, strict.AtIndex(err, kind+"_headers_to_add", i)
		}
		h.add = append(h.add, op)
	}
	return h, nil
}

func compileHeaderOp(p *corev3.HeaderValueOption) (headerOp, error) {
	op := headerOp{key: strings.ToLower(p.GetHeader().GetKey()), action: p.GetAppendAction(), keepEmpty: p.GetKeepEmptyValue()}
	if err := modifiable(op.key); err != nil {
		return op, strict.At(err, "header.key")
	}
	if a := p.GetAppend(); a != nil { //nolint:staticcheck // deprecated, and still sent
		if op.action != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			return op, strict.Errorf("append", "and append_action are both set")
		}
		if !a.GetValue() {
			op.action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		}
	}
	value := p.GetHeader().GetValue()
	if raw := p.GetHeader().GetRawValue(); len(raw) > 0 {
		value = string(raw)
	}
	var err error
	op.value, err = CompileFormat(value)
	return op, strict.At(err, "header.value")
}

// modifiable refuses what Envoy refuses, and what frames a message.
func modifiable(name string) error {
	switch {
	case name == "":
		return strict.Errorf("", "is required")
	case name[0] == ':' || name == "host":
		return strict.Errorf("", ":-prefixed or host headers may not be modified")
	case name == "content-length" || name == "transfer-encoding" || name == "connection" || name == "upgrade" || name == "keep-alive":
		return strict.Errorf("", "%s frames the message and may not be modified", name)
	}
	return nil
}

// Apply changes the headers: what is removed first, then what is overwritten, then what is added; values see the state before.
func (h *Headers) Apply(to *httpmsg.Header, i *exchange.Info) {
	if h == nil {
		return
	}
	for _, name := range h.remove {
		to.Del(name)
	}
	var few [8]string
	values := few[:0]
	for n := range h.add {
		values = append(values, h.add[n].compute(to, i))
	}
	for n := range h.add {
		if op := &h.add[n]; op.overwrites() && values[n] != skip {
			to.Set(op.key, values[n])
		}
	}
	for n := range h.add {
		if op := &h.add[n]; !op.overwrites() && values[n] != skip {
			to.Add(op.key, values[n])
		}
	}
}

// skip stands for no value: a NUL cannot be in a header.
const skip = "\x00"

func (op *headerOp) overwrites() bool {
	return op.action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || op.action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
}

func (op *headerOp) compute(to *httpmsg.Header, i *exchange.Info) string {
	v := op.value.Value(i)
	if v == "" && !op.keepEmpty {
		return skip
	}
	switch op.action {
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		if _, ok := to.Get(op.key); ok {
			return skip
		}
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		if _, ok := to.Get(op.key); !ok {
			return skip
		}
	}
	return v
}
