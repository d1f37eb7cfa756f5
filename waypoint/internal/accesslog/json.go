package accesslog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
)

// node is a compiled JSON value. It appends itself, or returns false when it is absent.
type node interface {
	appendTo(dst []byte, r *proxy.Record) ([]byte, bool)
}

// object is a JSON object with sorted keys.
type object struct {
	keys      []string // as JSON strings, with the colon
	values    []node
	omitEmpty bool
}

func (o *object) appendTo(dst []byte, r *proxy.Record) ([]byte, bool) {
	dst = append(dst, '{')
	first := true
	for i, value := range o.values {
		mark := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, o.keys[i]...)
		var ok bool
		if dst, ok = value.appendTo(dst, r); !ok {
			if o.omitEmpty {
				dst = dst[:mark]
				continue
			}
			dst = append(dst, "null"...)
		}
		first = false
	}
	return append(dst, '}'), true
}

type list struct {
	values []node
}

func (l *list) appendTo(dst []byte, r *proxy.Record) ([]byte, bool) {
	dst = append(dst, '[')
	for i, value := range l.values {
		if i > 0 {
			dst = append(dst, ',')
		}
		var ok bool
		if dst, ok = value.appendTo(dst, r); !ok {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, ']'), true
}

// constant is a number, true, false or null.
type constant string

func (c constant) appendTo(dst []byte, _ *proxy.Record) ([]byte, bool) {
	return append(dst, c...), true
}

// single is one operator alone: it keeps its type, and is null when absent.
type single struct{ *operator }

func (s single) appendTo(dst []byte, r *proxy.Record) ([]byte, bool) {
	if s.number {
		return s.operator.appendTo(dst, r)
	}
	mark := len(dst)
	dst, ok := s.operator.appendTo(dst, r)
	if !ok {
		return dst[:mark], false
	}
	return quoteFrom(dst, mark), true
}

// template is text with operators in it, as a string.
type template struct{ *text }

func (t template) appendTo(dst []byte, r *proxy.Record) ([]byte, bool) {
	mark := len(dst)
	return quoteFrom(t.text.appendTo(dst, r), mark), true
}

func compileJSON(s *structpb.Struct, omitEmpty bool) (*object, error) {
	o := &object{omitEmpty: omitEmpty}
	for _, key := range slices.Sorted(maps.Keys(s.GetFields())) {
		value, err := compileNode(s.GetFields()[key], omitEmpty)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
		o.keys = append(o.keys, string(append(quoteFrom([]byte(key), 0), ':')))
		o.values = append(o.values, value)
	}
	return o, nil
}

func compileNode(v *structpb.Value, omitEmpty bool) (node, error) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		t, err := compileText(kind.StringValue, omitEmpty)
		if err != nil {
			return nil, err
		}
		if len(t.parts) == 1 && t.parts[0].operator != nil {
			return single{t.parts[0].operator}, nil
		}
		return template{t}, nil
	case *structpb.Value_StructValue:
		return compileJSON(kind.StructValue, omitEmpty)
	case *structpb.Value_ListValue:
		l := &list{}
		for i, element := range kind.ListValue.GetValues() {
			n, err := compileNode(element, omitEmpty)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			l.values = append(l.values, n)
		}
		return l, nil
	case *structpb.Value_NumberValue:
		return constant(strconv.FormatFloat(kind.NumberValue, 'g', -1, 64)), nil
	case *structpb.Value_BoolValue:
		return constant(strconv.FormatBool(kind.BoolValue)), nil
	default:
		return constant("null"), nil
	}
}

// quoteFrom turns what dst has from mark on into a JSON string.
func quoteFrom(dst []byte, mark int) []byte {
	plain := true
	for _, c := range dst[mark:] {
		if c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, 0, 0)
		copy(dst[mark+1:], dst[mark:len(dst)-2])
		dst[mark], dst[len(dst)-1] = '"', '"'
		return dst
	}
	raw := string(dst[mark:])
	dst = append(dst[:mark], '"')
	for i := 0; i < len(raw); {
		c, size := utf8.DecodeRuneInString(raw[i:])
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c < ' ':
			dst = append(dst, `\u00`...)
			dst = append(dst, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default: // what is not UTF-8 becomes U+FFFD
			dst = utf8.AppendRune(dst, c)
		}
		i += size
	}
	return append(dst, '"')
}
