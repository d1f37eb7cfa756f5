package l7

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// routeIndex finds the first route that matches without asking all of them: exact paths by hash, prefixes in a radix tree, and with them
// regular expressions by what all that they match begins with; paths without case in a tree of their own; the rest in order. Each list
// is in the order of the routes.
type routeIndex struct {
	exact  map[string][]*Route
	prefix *radix
	folded *radix   // paths of ASCII letters in whatever case; nil without any
	rest   []*Route // CONNECT, and what begins with nothing in particular
}

func (x *routeIndex) build(routes []*Route) {
	x.exact, x.prefix = map[string][]*Route{}, &radix{}
	for _, r := range routes {
		switch m := &r.match; {
		case m.kind == pathConnect || m.kind == pathRegex && m.begins == "" || m.fold && !isASCII(m.text):
			x.rest = append(x.rest, r)
		case m.kind == pathRegex:
			x.prefix.insert(m.begins, r)
		case m.fold:
			if x.folded == nil {
				x.folded = &radix{}
			}
			x.folded.insert(m.text, r)
		case m.kind == pathExact:
			x.exact[m.text] = append(x.exact[m.text], r)
		default:
			x.prefix.insert(m.text, r)
		}
	}
}

// find returns the first route, in the order of the configuration, that matches.
func (x *routeIndex) find(r *Request) *Route {
	path := exchange.PathOnly(r.Head.Path)
	var found *Route
	if path != "" {
		found = firstOf(x.exact[path], found, r, path)
		found = x.prefix.find(path, found, r, false)
		if x.folded != nil {
			found = x.folded.find(path, found, r, true)
		}
	}
	return firstOf(x.rest, found, r, path)
}

// firstOf returns the first of the list that matches, or found when that one comes before it.
func firstOf(routes []*Route, found *Route, r *Request, path string) *Route {
	for _, rt := range routes {
		if found != nil && rt.index > found.index {
			return found
		}
		if rt.match.matches(r, path) {
			return rt
		}
	}
	return found
}

// isASCII is whether a text has no characters but those, of which each is a byte, in whatever case.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// radix is a node of a tree of prefixes.
type radix struct {
	text     string // the edge that leads here
	routes   []*Route
	children []*radix
	firsts   string // the first byte of each child's edge, which differ
}

func (n *radix) insert(key string, r *Route) {
	for key != "" {
		i := strings.IndexByte(n.firsts, key[0])
		if i < 0 {
			n.children = append(n.children, &radix{text: key, routes: []*Route{r}})
			n.firsts += key[:1]
			return
		}
		k := n.children[i]
		same := 0
		for same < len(key) && same < len(k.text) && key[same] == k.text[same] {
			same++
		}
		if same < len(k.text) {
			split := &radix{text: k.text[:same], children: []*radix{k}, firsts: k.text[same : same+1]}
			k.text = k.text[same:]
			n.children[i] = split
			k = split
		}
		n, key = k, key[same:]
	}
	n.routes = append(n.routes, r)
}

// find asks the routes whose text the path begins with. A tree that is folded has its texts in lower case.
func (n *radix) find(path string, found *Route, r *Request, folded bool) *Route {
	rest := path
	for {
		found = firstOf(n.routes, found, r, path)
		if rest == "" {
			return found
		}
		first := rest[0]
		if folded {
			first = lower(first)
		}
		i := strings.IndexByte(n.firsts, first)
		if i < 0 {
			return found
		}
		n = n.children[i]
		if !begins(rest, n.text, folded) {
			return found
		}
		rest = rest[len(n.text):]
	}
}

// begins is whether s begins with the text, which is in lower case when folded.
func begins(s, text string, folded bool) bool {
	if !folded {
		return strings.HasPrefix(s, text)
	}
	if len(s) < len(text) {
		return false
	}
	for i := range len(text) {
		if lower(s[i]) != text[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
