package match

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Metadata is a compiled MetadataMatcher over dynamic metadata.
type Metadata struct {
	filter string
	path   []string
	value  *Value
	invert bool
}

// CompileMetadata compiles a MetadataMatcher.
func CompileMetadata(p *matcherv3.MetadataMatcher) (*Metadata, error) {
	v, err := CompileValue(p.GetValue())
	if err != nil {
		return nil, strict.At(err, "value")
	}
	m := &Metadata{filter: p.GetFilter(), value: v, invert: p.GetInvert()}
	for _, s := range p.GetPath() {
		m.path = append(m.path, s.GetKey())
	}
	return m, nil
}

// Match is whether the metadata of the request matches.
func (m *Metadata) Match(i *exchange.Info) bool {
	var v any
	if md := i.Metadata(m.filter); md != nil {
		v = md
		for _, key := range m.path {
			next, ok := v.(map[string]any)
			if !ok {
				v = nil
				break
			}
			v = next[key]
		}
	}
	return m.value.Match(v) != m.invert
}

type valueKind uint8

const (
	valueNull valueKind = iota
	valueNumber
	valueRange
	valueString
	valueBool
	valuePresent
	valueList
	valueOr
)

// Value is a compiled ValueMatcher.
type Value struct {
	kind       valueKind
	text       String
	truth      bool
	start, end float64
	any        []*Value
}

// CompileValue compiles a ValueMatcher.
func CompileValue(p *matcherv3.ValueMatcher) (*Value, error) {
	switch k := p.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return &Value{}, nil
	case *matcherv3.ValueMatcher_DoubleMatch:
		if r := k.DoubleMatch.GetRange(); r != nil {
			return &Value{kind: valueRange, start: r.GetStart(), end: r.GetEnd()}, nil
		}
		return &Value{kind: valueNumber, start: k.DoubleMatch.GetExact()}, nil
	case *matcherv3.ValueMatcher_StringMatch:
		s, err := CompileString(k.StringMatch)
		return &Value{kind: valueString, text: s}, strict.At(err, "string_match")
	case *matcherv3.ValueMatcher_BoolMatch:
		return &Value{kind: valueBool, truth: k.BoolMatch}, nil
	case *matcherv3.ValueMatcher_PresentMatch:
		return &Value{kind: valuePresent, truth: k.PresentMatch}, nil
	case *matcherv3.ValueMatcher_ListMatch:
		one, err := CompileValue(k.ListMatch.GetOneOf())
		return &Value{kind: valueList, any: []*Value{one}}, strict.At(err, "list_match.one_of")
	case *matcherv3.ValueMatcher_OrMatch:
		v := &Value{kind: valueOr}
		for i, a := range k.OrMatch.GetValueMatchers() {
			one, err := CompileValue(a)
			if err != nil {
				return nil, strict.At(strict.AtIndex(err, "value_matchers", i), "or_match")
			}
			v.any = append(v.any, one)
		}
		return v, nil
	}
	return nil, strict.Errorf("match_pattern", "is required")
}

// Match is whether a value, as of encoding/json, matches; nil is one that is not there.
func (m *Value) Match(v any) bool {
	switch m.kind {
	case valueNull:
		return false // what is absent is not null, and JSON null does not get into metadata as a value
	case valueNumber:
		f, ok := v.(float64)
		return ok && f == m.start
	case valueRange:
		f, ok := v.(float64)
		return ok && f >= m.start && f < m.end
	case valueString:
		s, ok := v.(string)
		return ok && m.text.Match(s)
	case valueBool:
		b, ok := v.(bool)
		return ok && b == m.truth
	case valuePresent:
		return (v != nil) && m.truth
	case valueList:
		list, ok := v.([]any)
		if !ok {
			return false
		}
		for _, e := range list {
			if m.any[0].Match(e) {
				return true
			}
		}
		return false
	}
	for _, a := range m.any {
		if a.Match(v) {
			return true
		}
	}
	return false
}
