package match

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

type headerKind uint8

const (
	headerString headerKind = iota
	headerRange
	headerPresent
)

// Header is a compiled HeaderMatcher.
type Header struct {
	name         string
	kind         headerKind
	value        String
	start, end   int64
	present      bool
	invert       bool
	missingEmpty bool
}

// CompileHeader compiles a HeaderMatcher.
func CompileHeader(p *routev3.HeaderMatcher) (Header, error) {
	m := Header{name: strings.ToLower(p.GetName()), invert: p.GetInvertMatch(), missingEmpty: p.GetTreatMissingHeaderAsEmpty()}
	if m.name == "" {
		return m, strict.Errorf("name", "is required")
	}
	var err error
	switch k := p.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_ExactMatch:
		m.value = Exact(k.ExactMatch) //nolint:staticcheck // deprecated, and still sent
	case *routev3.HeaderMatcher_PrefixMatch:
		m.value = Prefix(k.PrefixMatch) //nolint:staticcheck // deprecated, and still sent
	case *routev3.HeaderMatcher_SuffixMatch:
		m.value = Suffix(k.SuffixMatch) //nolint:staticcheck // deprecated, and still sent
	case *routev3.HeaderMatcher_ContainsMatch:
		m.value = Contains(k.ContainsMatch) //nolint:staticcheck // deprecated, and still sent
	case *routev3.HeaderMatcher_SafeRegexMatch:
		m.value, err = Regex(k.SafeRegexMatch.GetRegex()) //nolint:staticcheck // deprecated, and still sent
		err = strict.At(err, "safe_regex_match")
	case *routev3.HeaderMatcher_StringMatch:
		m.value, err = CompileString(k.StringMatch)
		err = strict.At(err, "string_match")
	case *routev3.HeaderMatcher_RangeMatch:
		m.kind, m.start, m.end = headerRange, k.RangeMatch.GetStart(), k.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_PresentMatch:
		m.kind, m.present = headerPresent, k.PresentMatch
	default:
		m.kind, m.present = headerPresent, true
	}
	return m, err
}

// CompileHeaders compiles a list.
func CompileHeaders(ps []*routev3.HeaderMatcher, field string) ([]Header, error) {
	var out []Header
	for i, p := range ps {
		m, err := CompileHeader(p)
		if err != nil {
			return nil, strict.AtIndex(err, field, i)
		}
		out = append(out, m)
	}
	return out, nil
}

// Match is whether the head's header matches: one of its values does, each for itself. A header that is missing matches only a
// present_match, or as an empty one when the matcher says so; inversion does not change that.
func (m *Header) Match(h *httpmsg.Head) bool {
	if m.kind == headerPresent {
		_, ok := exchange.Header(h, m.name)
		return (ok || m.missingEmpty) == m.present != m.invert
	}
	if exchange.OneValue(m.name) {
		v, ok := exchange.Header(h, m.name)
		if !ok && !m.missingEmpty {
			return false
		}
		return m.one(v) != m.invert
	}
	found := false
	for _, f := range h.Header.Fields() {
		if f.Key != m.name {
			continue
		}
		if found = true; m.one(f.Value) {
			return !m.invert
		}
	}
	switch {
	case found:
		return m.invert
	case m.missingEmpty:
		return m.one("") != m.invert
	}
	return false
}

func (m *Header) one(v string) bool {
	if m.kind == headerRange {
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n >= m.start && n < m.end
	}
	return m.value.Match(v)
}

// MatchHeaders is whether all match.
func MatchHeaders(ms []Header, h *httpmsg.Head) bool {
	for i := range ms {
		if !ms[i].Match(h) {
			return false
		}
	}
	return true
}
