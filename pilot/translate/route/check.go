package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Check reports whether a regex is one that the proxies compile. Both read RE2, which is what Go's is.
func checkRegex(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, errors.New("the regular expression is empty")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("the regular expression %q does not compile: %w", pattern, err)
	}
	return re, nil
}

// Check names what is wrong with a match.
func (m StringMatch) Check() error {
	if !utf8.ValidString(m.Value) {
		return errors.New("the value is no UTF-8")
	}
	switch m.Kind {
	case Regex:
		_, err := checkRegex(m.Value)
		return err
	case Prefix, Suffix, Contains:
		if m.Value == "" {
			return errors.New("the value is empty")
		}
	case Present, Exact:
	}
	return nil
}

// Check names what is wrong with a path match.
func (p Path) Check() error {
	switch p.Kind {
	case PathRegex:
		_, err := checkRegex(p.Value)
		return err
	case PathSegments:
		if !strings.HasPrefix(p.Value, "/") || strings.ContainsAny(p.Value, "?#") {
			return fmt.Errorf("the path %q does not begin with a slash, or has a query", p.Value)
		}
	case PathExact, PathPrefix:
		if p.Value == "" {
			return errors.New("the path is empty")
		}
	case PathAny:
	}
	if !utf8.ValidString(p.Value) {
		return errors.New("the path is no UTF-8")
	}
	return nil
}

// Check names what is wrong with a rewrite: the pattern, or a group of the substitution that the pattern does not have.
func (r RegexRewrite) Check() error {
	re, err := checkRegex(r.Pattern)
	if err != nil {
		return err
	}
	if err := CheckValue(r.Substitution); err != nil {
		return err
	}
	for i := 0; i < len(r.Substitution); i++ {
		if r.Substitution[i] != '\\' {
			continue
		}
		i++
		if i == len(r.Substitution) {
			return fmt.Errorf("the substitution %q ends in a backslash", r.Substitution)
		}
		c := r.Substitution[i]
		if c == '\\' {
			continue
		}
		if c < '0' || c > '9' {
			return fmt.Errorf(`the substitution %q: only \0 to \9 and \\ may follow a backslash`, r.Substitution)
		}
		if group := int(c - '0'); group > re.NumSubexp() {
			return fmt.Errorf("the substitution %q names group %d of a pattern that has %d", r.Substitution, group, re.NumSubexp())
		}
	}
	return nil
}

// CheckName reports whether a header may have the name.
func CheckName(name string) error {
	if name == "" {
		return errors.New("the header has no name")
	}
	for i := range len(name) {
		if !tokenByte(name[i]) {
			return fmt.Errorf("%q is no header name", name)
		}
	}
	return nil
}

// tokenByte is RFC 9110's tchar.
func tokenByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// maxValue is the longest value of a header that Envoy takes in its configuration.
const maxValue = 16384

// CheckValue reports whether a header may have the value.
func CheckValue(value string) error {
	if len(value) > maxValue {
		return fmt.Errorf("the value has %d bytes, more than %d", len(value), maxValue)
	}
	if !utf8.ValidString(value) {
		return errors.New("the value is no UTF-8")
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("the value %q has a control character", value)
		}
	}
	return nil
}

// IsHost reports whether a header is the authority, which is rewritten rather than changed.
func IsHost(name string) bool {
	return strings.EqualFold(name, "host") || strings.EqualFold(name, ":authority")
}
