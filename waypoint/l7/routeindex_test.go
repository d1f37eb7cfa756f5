package l7

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What an expression begins with is what all that it matches begins with, and no more.
func TestLiteralPrefix(t *testing.T) {
	for re, want := range map[string]string{
		`/api/v[0-9]+/x`:    "/api/v",
		`/a/(b|c)`:          "/a/",
		`/a/(bx|by)`:        "/a/b",
		`(/a)(/b).*`:        "/a/b",
		`^/a$`:              "/a",
		`/ab?`:              "/a",
		`/ab*`:              "/a",
		`/ab+c`:             "/ab",
		`/(ab){2}c`:         "/ab",
		`/(ab){0,2}c`:       "/",
		`(?i)/api`:          "",
		`/(?i)a`:            "/",
		`.*`:                "",
		`/a|/b`:             "/",
		`/a|b`:              "",
		`(/a)?/b`:           "",
		`\Q/a.b\E.`:         "/a.b",
		`/é[a-z]`:           "/é",
		`[^/]+/x`:           "",
		``:                  "",
		`(?:/x)`:            "/x",
		`/items/\d+(/.*)?$`: "/items/",
	} {
		if got := literalPrefix(regexp.MustCompile(`\A(?:` + re + `)\z`)); got != want {
			t.Errorf("%s begins with %q, want %q", re, got, want)
		}
	}
}

// The first route that matches is found, whichever part of the index it is in.
func TestIndexKeepsTheOrder(t *testing.T) {
	w := newWorld(t, manager("", "", vhost(`
		{'name': 'header', 'match': {'prefix': '/', 'headers': [{'name': 'x-first', 'present_match': true}]}, 'route': {'cluster': 'up'}},
		{'name': 'regex', 'match': {'safe_regex': {'regex': '/a/[0-9]+'}}, 'route': {'cluster': 'up'}},
		{'name': 'exact', 'match': {'path': '/a/1'}, 'route': {'cluster': 'up'}},
		{'name': 'folded exact', 'match': {'path': '/A/x', 'case_sensitive': false}, 'route': {'cluster': 'up'}},
		{'name': 'exact x', 'match': {'path': '/a/x'}, 'route': {'cluster': 'up'}},
		{'name': 'folded', 'match': {'prefix': '/A/b', 'case_sensitive': false}, 'route': {'cluster': 'up'}},
		{'name': 'segments', 'match': {'path_separated_prefix': '/a/b'}, 'route': {'cluster': 'up'}},
		{'name': 'folded segments', 'match': {'path_separated_prefix': '/A/C', 'case_sensitive': false}, 'route': {'cluster': 'up'}},
		{'name': 'any regex', 'match': {'safe_regex': {'regex': '.*/end'}}, 'route': {'cluster': 'up'}},
		{'name': 'folded Ä', 'match': {'path': '/Ä', 'case_sensitive': false}, 'route': {'cluster': 'up'}},
		{'name': 'prefix', 'match': {'prefix': '/a'}, 'route': {'cluster': 'up'}},
		{'name': 'late regex', 'match': {'safe_regex': {'regex': '/a/late'}}, 'route': {'cluster': 'up'}}`)))
	for path, want := range map[string]string{
		"/a/1": "regex", "/a/12": "regex", "/a/1x": "prefix", "/a/x": "folded exact", "/A/X": "folded exact", "/a/x/y": "prefix",
		"/a/b": "folded", "/a/B/c": "folded", "/a/bc": "folded", "/a/c/d": "folded segments", "/A/c": "folded segments", "/A/cd": "",
		"/x/end": "any regex", "/a/end": "any regex", "/a/c/end": "folded segments", "/a/late": "prefix", "/ä": "folded Ä", "/A": "", "/b": "",
		"/a?x=/end": "prefix",
	} {
		if d := w.decide(t, request("GET "+path)); d.RouteName != want {
			t.Errorf("%s: route %q, want %q", path, d.RouteName, want)
		}
		if d := w.decide(t, request("GET "+path, "x-first: 1")); d.RouteName != "header" {
			t.Errorf("%s with the header: route %q", path, d.RouteName)
		}
	}
}

// However many routes there are, few are asked: those whose text the path begins with.
func TestIndexAsksFew(t *testing.T) {
	for name, route := range map[string]string{
		"exact":    `{'match': {'path': '/r/%d'}, 'route': {'cluster': 'up'}},`,
		"prefix":   `{'match': {'prefix': '/r/%d/'}, 'route': {'cluster': 'up'}},`,
		"segments": `{'match': {'path_separated_prefix': '/r/%d'}, 'route': {'cluster': 'up'}},`,
		"regex":    `{'match': {'safe_regex': {'regex': '/r/%d/[a-z]+'}}, 'route': {'cluster': 'up'}},`,
		"folded":   `{'match': {'path': '/R/%d', 'case_sensitive': false}, 'route': {'cluster': 'up'}},`,
	} {
		var text strings.Builder
		for i := range 500 {
			fmt.Fprintf(&text, route, i)
		}
		routes, err := compileRC(t, "{'name': 'r', "+vhost(strings.TrimSuffix(text.String(), ","))+"}")
		if err != nil {
			t.Fatal(err)
		}
		x := &routes.any.index
		if len(x.rest) > 0 {
			t.Errorf("%s: %d routes are asked for every path", name, len(x.rest))
		}
		for _, root := range []*radix{x.prefix, x.folded} {
			if most := root.most(); most > 3 { // 1, 12, 123: not the segments' affair, but they are in the tree
				t.Errorf("%s: a path may ask %d routes", name, most)
			}
		}
	}
}

// most is how many routes are asked on the longest way through the tree.
func (n *radix) most() int {
	if n == nil {
		return 0
	}
	deepest := 0
	for _, k := range n.children {
		deepest = max(deepest, k.most())
	}
	return len(n.routes) + deepest
}
