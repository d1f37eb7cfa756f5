package l4_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// What was tried in vain is chosen only when there is nothing else, whatever its weight and place.
func TestDecideAvoids(t *testing.T) {
	const uid = "c//Pod/shop/"
	web := pod("web", "10.0.0.1", `tunnel_protocol: HBONE node: "n1"`)
	near := pod("near", "10.0.0.2", `tunnel_protocol: HBONE node: "n1" capacity { value: 5 } `+backsCart)
	far := pod("far", "10.0.0.3", `tunnel_protocol: HBONE node: "n2" capacity { value: 0 } `+backsCart)
	sick := pod("sick", "10.0.0.4", "tunnel_protocol: HBONE status: UNHEALTHY "+backsCart)
	service := func(more string) string { return cartService + more + " }" }
	for _, tt := range []struct {
		name, service string
		avoid         []string
		want          string
	}{
		{"nothing", "", nil, "near"},
		{"the one that would be chosen", "", []string{uid + "near"}, "far"},
		{"all: the choice is as before", "", []string{uid + "near", uid + "far"}, "near"},
		{"all but an unhealthy one", "", []string{uid + "far", uid + "near"}, "near"},
		{"somebody unknown", "", []string{uid + "gone"}, "near"},
		{"the near one, with failover", "load_balancing { routing_preference: NODE mode: FAILOVER }", []string{uid + "near"}, "far"},
		{"the only one that strictness allows", "load_balancing { routing_preference: NODE mode: STRICT }", []string{uid + "near"}, "near"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := build(t, web, near, far, sick, service(tt.service))
			route, err := l4.Decide(s, l4.Conn{
				SourceWorkload: s.Workload(uid + "web"), Source: ap("10.0.0.1:40000"), Dst: ap("10.96.0.1:80"),
				Rand: func(uint64) uint64 { return 0 }, Avoid: tt.avoid,
			})
			if err != nil || route.Destination.Name != tt.want {
				t.Errorf("%+v, %v; want %s", route.Destination, err, tt.want)
			}
		})
	}
}

func TestDecideAvoidsWaypointInstances(t *testing.T) {
	const uid = "c//Pod/shop/"
	s := build(t, pod("web", "10.0.0.1", ""), cartService+useWP+" }", wpService,
		pod("wp-0", "10.0.0.8", "capacity { value: 5 } "+backsWP), pod("wp-1", "10.0.0.9", "capacity { value: 0 } "+backsWP))
	for _, tt := range []struct{ avoid, want string }{{"", "wp-0"}, {"wp-0", "wp-1"}, {"wp-1", "wp-0"}} {
		route, err := l4.Decide(s, l4.Conn{
			SourceWorkload: s.Workload(uid + "web"), Source: ap("10.0.0.1:40000"), Dst: ap("10.96.0.1:80"),
			Rand: func(uint64) uint64 { return 0 }, Avoid: []string{uid + tt.avoid},
		})
		if err != nil || route.Kind != l4.ServiceWaypoint || route.Destination.Name != tt.want {
			t.Errorf("avoiding %q: %+v, %v; want %s", tt.avoid, route, err, tt.want)
		}
	}
}
