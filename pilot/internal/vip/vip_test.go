package vip

import (
	"net/netip"
	"testing"
)

func TestPick(t *testing.T) {
	taken := map[Slot]bool{}
	first, ok := Pick("ns/a", "a.example.org", func(s Slot) bool { return !taken[s] })
	if !ok || first == 0 || first == 1<<16-1 {
		t.Fatalf("%d %t", first, ok)
	}
	again, _ := Pick("ns/a", "a.example.org", func(Slot) bool { return true })
	taken[first] = true
	next, _ := Pick("ns/a", "a.example.org", func(s Slot) bool { return !taken[s] })
	if again != first || next == first {
		t.Errorf("%d, again %d, taken %d", first, again, next)
	}
	if _, ok := Pick("ns/a", "a", func(Slot) bool { return false }); ok {
		t.Error("a slot of none")
	}
	if Slot(258).IPv4().String() != "240.240.1.2" || Slot(258).IPv6().String() != "2001:2::102" {
		t.Errorf("%s %s", Slot(258).IPv4(), Slot(258).IPv6())
	}
}

func TestContains(t *testing.T) {
	for text, want := range map[string]bool{"240.240.0.0": true, "240.240.255.255": true, "240.241.0.0": false, "2001:2::1": true, "2001:2:0:1::": true, "2001:2:1::": false, "::ffff:240.240.0.1": true} {
		if got := Contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}
