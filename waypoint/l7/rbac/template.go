package rbac

import (
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// What a * stands for: characters of one path segment; ** takes slashes too.
const (
	segmentChars = `[a-zA-Z0-9\-._~%!$&'()+,;:@=]`
	anyChars     = `[a-zA-Z0-9\-._~%!$&'()+,;:@=/]`
)

// templateRegexp compiles a URI template: /a/{*}/b, /a/{**}, /a/{name=*}, /a/*.
func templateRegexp(t string) (*regexp.Regexp, error) {
	if !strings.HasPrefix(t, "/") {
		return nil, strict.Errorf("", "%q does not begin with a slash", t)
	}
	var b strings.Builder
	b.WriteString(`\A`)
	glob := false
	for rest := t; rest != ""; {
		switch {
		case glob && strings.ContainsAny(rest, "*{"):
			return nil, strict.Errorf("", "%q: nothing may follow ** but text", t)
		case strings.HasPrefix(rest, "**"):
			b.WriteString(anyChars + "*")
			rest, glob = rest[2:], true
		case rest[0] == '*':
			b.WriteString(segmentChars + "+")
			rest = rest[1:]
		case rest[0] == '{':
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return nil, strict.Errorf("", "%q: a { is not closed", t)
			}
			v := rest[1:end]
			if _, pattern, named := strings.Cut(v, "="); named {
				v = pattern
			} else if v != "*" && v != "**" {
				v = "*"
			}
			rest = v + rest[end+1:]
			if strings.ContainsAny(v, "{}") {
				return nil, strict.Errorf("", "%q: variables may not nest", t)
			}
		default:
			i := strings.IndexAny(rest, "*{")
			if i < 0 {
				i = len(rest)
			}
			b.WriteString(regexp.QuoteMeta(rest[:i]))
			rest = rest[i:]
		}
	}
	b.WriteString(`\z`)
	return regexp.Compile(b.String())
}
