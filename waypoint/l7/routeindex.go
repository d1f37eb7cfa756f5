package l7

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// routeIndex finds the first route that matches without asking all of them: exact paths by hash, prefixes in a radix tree, the rest
// in order. Each list is in the order of the routes.
type routeIndex struct {
	exact  map[string][]*Route
	prefix *radix
	rest   []*Route // regular expressions, paths without case, CONNECT
}

func (x *routeIndex) build(routes []*Route) {
	x.exact, x.prefix = map[string][]*Route{}, &radix{}
	for _, r := range routes {
		switch m := &r.match; {
		case m.fold || m.kind == pathRegex || m.kind == pathConnect:
			x.rest = append(x.rest, r)
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
		found = x.prefix.find(path, found, r)
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

// radix is a node of a tree of prefixes.
type radix struct {
	text     string // the edge that leads here
	routes   []*Route
	children []*radix // by first byte, which differ
}

func (n *radix) child(c byte) (int, *radix) {
	for i, k := range n.children {
		if k.text[0] == c {
			return i, k
		}
	}
	return -1, nil
}

func (n *radix) insert(key string, r *Route) {
	for key != "" {
		i, k := n.child(key[0])
		if k == nil {
			n.children = append(n.children, &radix{text: key, routes: []*Route{r}})
			return
		}
		same := 0
		for same < len(key) && same < len(k.text) && key[same] == k.text[same] {
			same++
		}
		if same < len(k.text) {
			split := &radix{text: k.text[:same], children: []*radix{k}}
			k.text = k.text[same:]
			n.children[i] = split
			k = split
		}
		n, key = k, key[same:]
	}
	n.routes = append(n.routes, r)
}

func (n *radix) find(path string, found *Route, r *Request) *Route {
	rest := path
	for {
		found = firstOf(n.routes, found, r, path)
		if rest == "" {
			return found
		}
		_, k := n.child(rest[0])
		if k == nil || !strings.HasPrefix(rest, k.text) {
			return found
		}
		n, rest = k, rest[len(k.text):]
	}
}
