package upstream

import (
	"net/netip"
	"testing"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// The host of a session is taken whatever the balancing says, unless it is in no health for it; then another one is, or none.
func TestHostOfSession(t *testing.T) {
	conf := ejecting("a")
	conf.LB.SessionHealth = [l7.Draining + 1]bool{l7.Healthy: true, l7.Degraded: true, l7.Draining: true}
	one, two := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	list := []*l7.Endpoint{{Address: one, Weight: 1}, {Address: two, Weight: 1}}
	m := newManager(t)
	c := m.Update(assigned(conf, list...))["a"]
	pick := func(address string, strict bool) string {
		h := c.Pick(&Choice{Rand: global{}, Session: l7.SessionHost{Address: address, Strict: strict}})
		if h == nil {
			return "none"
		}
		return h.Address()
	}
	for range 20 {
		if got := pick(two.String(), false); got != two.String() {
			t.Fatalf("the session's host is %s, and %s was taken", two, got)
		}
	}
	if got := pick("10.0.0.3:80", false); got == "none" {
		t.Error("nobody is taken for a host that is gone")
	}
	if got := pick("10.0.0.3:80", true); got != "none" {
		t.Errorf("%s is taken for a host that is gone, and no other would do", got)
	}
	if !c.Knows(two.String()) || c.Knows("10.0.0.3:80") {
		t.Error("which hosts are known")
	}
	for health, want := range map[l7.Health]string{l7.Degraded: two.String(), l7.Draining: two.String(), l7.Unhealthy: "none"} {
		sick := *list[1]
		sick.Health = health
		m.Update(assigned(conf, list[0], &sick))
		if got := pick(two.String(), true); got != want {
			t.Errorf("health %d: %s, want %s", health, got, want)
		}
		if got := pick(two.String(), false); health == l7.Unhealthy && got != one.String() {
			t.Errorf("health %d: %s is taken in its place", health, got)
		}
	}
	m.Update(assigned(conf, list...))
	for range 3 {
		c.Answered(c.Pick(&Choice{Rand: global{}, Session: l7.SessionHost{Address: two.String()}}), 500)
	}
	if got := pick(two.String(), false); got != one.String() {
		t.Errorf("the session's host is ejected, and %s was taken", got)
	}
	if got := pick(two.String(), true); got != "none" {
		t.Errorf("the session's host is ejected, no other would do, and %s was taken", got)
	}
}
