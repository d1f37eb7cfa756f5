package gateway

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// The path of a session's cookie is what all requests of the match begin with, so that clients send the cookie with each of them.
func TestCookiePaths(t *testing.T) {
	s := &route.Session{Cookie: route.SessionCookie{Name: "sid"}}
	for _, test := range []struct {
		path route.Path
		want string
	}{
		{route.Path{}, "/"},
		{route.Path{Kind: route.PathExact, Value: "/a/b"}, "/a/b"},
		{route.Path{Kind: route.PathSegments, Value: "/a"}, "/a"},
		{route.Path{Kind: route.PathSegments, Value: "/a", IgnoreCase: true}, "/"},
		{route.Path{Kind: route.PathPrefix, Value: "/a/b"}, "/a/"},
		{route.Path{Kind: route.PathExact, Value: "/a;b"}, "/"},
		{route.Path{Kind: route.PathRegex, Value: "/a/b/.*"}, "/a/b/"},
		{route.Path{Kind: route.PathRegex, Value: "^/a/b[0-9]+/c"}, "/a/"},
		{route.Path{Kind: route.PathRegex, Value: "/a/b"}, "/a/"},
		{route.Path{Kind: route.PathRegex, Value: "/a/?"}, "/"},
		{route.Path{Kind: route.PathRegex, Value: "/a/*b"}, "/"},
		{route.Path{Kind: route.PathRegex, Value: "/a/b|/c/d"}, "/"},
		{route.Path{Kind: route.PathRegex, Value: "(?i)/a/b"}, "/"},
		{route.Path{Kind: route.PathRegex, Value: ".*/a/"}, "/"},
		{route.Path{Kind: route.PathRegex, Value: `/a/\d/b`}, "/a/"},
	} {
		if got := sessionAt(s, test.path); got.Cookie.Path != test.want || got.Cookie.Name != "sid" || s.Cookie.Path != "" {
			t.Errorf("%v: %+v, want path %s", test.path, got, test.want)
		}
	}
	if sessionAt(nil, route.Path{}) != nil {
		t.Error("a session where none is asked for")
	}
	if header := (&route.Session{Header: "x"}); sessionAt(header, route.Path{Kind: route.PathExact, Value: "/a"}) != header {
		t.Error("a header has a path")
	}
}

func TestSessionsOfServices(t *testing.T) {
	for label, want := range map[ambient.Session]route.Session{
		{}:                           {},
		{Cookie: "sid", Path: "/"}:   {Cookie: route.SessionCookie{Name: "sid", Path: "/"}},
		{Cookie: "sid", Path: "/a"}:  {Cookie: route.SessionCookie{Name: "sid", Path: "/a"}},
		{Cookie: "s d", Path: "/"}:   {},
		{Cookie: "sid", Path: "a"}:   {},
		{Cookie: "sid", Path: ""}:    {},
		{Cookie: "sid", Path: "/;a"}: {},
		{Header: "X-Session"}:        {Header: "X-Session"},
		{Header: "x session"}:        {},
	} {
		got := serviceSession(&Service{Session: label})
		if got == nil {
			got = &route.Session{}
		}
		if *got != want {
			t.Errorf("%+v: %+v, want %+v", label, *got, want)
		}
	}
	if serviceSession(nil) != nil {
		t.Error("a session of nobody")
	}
}
