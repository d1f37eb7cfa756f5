package route

import (
	"testing"
	"time"

	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// described is what a filter's configuration says: header NAME, or cookie NAME PATH TTL; empty for none.
func described(t *testing.T, configs map[string]*anypb.Any) string {
	t.Helper()
	packed := configs[SessionFilter]
	if packed == nil {
		return ""
	}
	var per sessionv3.StatefulSessionPerRoute
	if err := packed.UnmarshalTo(&per); err != nil {
		t.Fatal(err)
	}
	if err := per.ValidateAll(); err != nil {
		t.Error(err)
	}
	state, err := per.GetStatefulSession().GetSessionState().GetTypedConfig().UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	switch state := state.(type) {
	case *headerv3.HeaderBasedSessionState:
		return "header " + state.GetName()
	case *cookiev3.CookieBasedSessionState:
		c := state.GetCookie()
		if c.GetTtl() == nil {
			return "cookie " + c.GetName() + " " + c.GetPath()
		}
		return "cookie " + c.GetName() + " " + c.GetPath() + " " + c.GetTtl().AsDuration().String()
	}
	return "unknown"
}

// The session of a route counts before those of its targets, of which the only one's is the route's.
func TestSessions(t *testing.T) {
	own := &Session{Cookie: SessionCookie{Name: "own", Path: "/", TTL: 90 * time.Second}}
	a, b := &Session{Header: "x-a"}, &Session{Cookie: SessionCookie{Name: "b", Path: "/b"}}
	for name, test := range map[string]struct {
		forward Forward
		route   string
		targets []string
	}{
		"none":                   {forward: Forward{Targets: []Target{{Cluster: "a"}}}},
		"of the only target":     {forward: Forward{Targets: []Target{{Cluster: "a", Session: a}}}, route: "header x-a"},
		"of the one with weight": {forward: Forward{Targets: []Target{{Cluster: "a", Session: a, Weight: 0}, {Cluster: "b", Session: b, Weight: 1}}}, route: "cookie b /b"},
		"of each target":         {forward: Forward{Targets: []Target{{Cluster: "a", Session: a, Weight: 1}, {Cluster: "b", Session: b, Weight: 1}, {Cluster: "c", Weight: 1}}}, targets: []string{"header x-a", "cookie b /b", ""}},
		"of the route":           {forward: Forward{Session: own, Targets: []Target{{Cluster: "a", Session: a, Weight: 1}, {Cluster: "b", Weight: 1}}}, route: "cookie own / 1m30s", targets: []string{"", ""}},
	} {
		rt, err := (&Route{Forward: &test.forward}).envoy()
		if err != nil {
			t.Fatal(err)
		}
		if got := described(t, rt.GetTypedPerFilterConfig()); got != test.route {
			t.Errorf("%s: the route says %q, want %q", name, got, test.route)
		}
		split := rt.GetRoute().GetWeightedClusters().GetClusters()
		if len(split) != len(test.targets) {
			t.Fatalf("%s: %d targets, want %d", name, len(split), len(test.targets))
		}
		for i, c := range split {
			if got := described(t, c.GetTypedPerFilterConfig()); got != test.targets[i] {
				t.Errorf("%s: target %s says %q, want %q", name, c.GetName(), got, test.targets[i])
			}
		}
	}
	if rt, err := (&Route{Direct: &Direct{Status: 200}}).envoy(); err != nil || rt.GetTypedPerFilterConfig() != nil {
		t.Errorf("%v, %v", rt, err)
	}
}
