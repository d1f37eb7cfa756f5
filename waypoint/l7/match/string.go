package match

import (
	"regexp"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

type stringKind uint8

const (
	exact stringKind = iota
	prefix
	suffix
	contains
	regex
)

// String is a compiled StringMatcher. Its zero value matches only the empty string.
type String struct {
	kind stringKind
	fold bool
	text string
	re   *regexp.Regexp
}

// Exact matches one string.
func Exact(s string) String { return String{text: s} }

// Prefix matches what begins so.
func Prefix(s string) String { return String{kind: prefix, text: s} }

// Suffix matches what ends so.
func Suffix(s string) String { return String{kind: suffix, text: s} }

// Contains matches what has s in it.
func Contains(s string) String { return String{kind: contains, text: s} }

// Regex matches what the whole expression matches. Envoy's are RE2's, as Go's are.
func Regex(re string) (String, error) {
	c, err := FullRegex(re)
	return String{kind: regex, re: c}, err
}

// FullRegex compiles an expression that must match all of a string.
func FullRegex(re string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(re); err != nil {
		return nil, strict.Errorf("regex", "%v", err)
	}
	return regexp.Compile(`\A(?:` + re + `)\z`)
}

// Text is the one string that is matched, for a matcher of exactly one.
func (m String) Text() (text string, ok bool) { return m.text, m.kind == exact && !m.fold }

// CompileString compiles a StringMatcher.
func CompileString(p *matcherv3.StringMatcher) (String, error) {
	var m String
	switch k := p.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		m = Exact(k.Exact)
	case *matcherv3.StringMatcher_Prefix:
		m = Prefix(k.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		m = Suffix(k.Suffix)
	case *matcherv3.StringMatcher_Contains:
		m = Contains(k.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		m, err := Regex(k.SafeRegex.GetRegex())
		return m, strict.At(err, "safe_regex")
	default:
		return m, strict.Errorf("match_pattern", "is required")
	}
	if p.GetIgnoreCase() {
		m.fold = true
		m.text = strings.ToLower(m.text)
	}
	return m, nil
}

// Match is whether s matches.
func (m *String) Match(s string) bool {
	switch m.kind {
	case exact:
		if m.fold {
			return equalFold(s, m.text)
		}
		return s == m.text
	case prefix:
		if len(s) < len(m.text) {
			return false
		}
		if m.fold {
			return equalFold(s[:len(m.text)], m.text)
		}
		return s[:len(m.text)] == m.text
	case suffix:
		if len(s) < len(m.text) {
			return false
		}
		if m.fold {
			return equalFold(s[len(s)-len(m.text):], m.text)
		}
		return strings.HasSuffix(s, m.text)
	case contains:
		if !m.fold {
			return strings.Contains(s, m.text)
		}
		for i := 0; i+len(m.text) <= len(s); i++ {
			if equalFold(s[i:i+len(m.text)], m.text) {
				return true
			}
		}
		return false
	}
	return m.re.MatchString(s)
}

// ExactText returns the only string that matches, if there is but one.
func (m *String) ExactText() (string, bool) { return m.text, m.kind == exact && !m.fold }

// equalFold compares ASCII letters without case; lower is in lower case.
func equalFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
