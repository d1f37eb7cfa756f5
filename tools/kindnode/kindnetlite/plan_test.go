package kindnetlite

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const nodesJSON = `{"items":[
{"metadata":{"name":"a"},"spec":{"podCIDRs":["10.244.0.0/24","fd00:10:244::/64"]},"status":{"addresses":[{"type":"InternalIP","address":"172.18.0.2"},{"type":"InternalIP","address":"fc00::2"},{"type":"Hostname","address":"a"}]}},
{"metadata":{"name":"c"},"spec":{"podCIDRs":["10.244.2.0/24"]},"status":{"addresses":[{"type":"InternalIP","address":"172.18.0.4"}]}},
{"metadata":{"name":"b"},"spec":{"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"]},"status":{"addresses":[{"type":"InternalIP","address":"172.18.0.3"},{"type":"InternalIP","address":"fc00::3"}]}},
{"metadata":{"name":"new"},"spec":{},"status":{}}]}`

func nodes(t *testing.T) []Node {
	t.Helper()
	out, err := parseNodes([]byte(nodesJSON))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDecide(t *testing.T) {
	subnets, err := ParsePrefixes("10.244.0.0/16, fd00:10:244::/56")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Decide(nodes(t), "a", subnets)
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{
		{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParseAddr("172.18.0.3")},
		{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParseAddr("172.18.0.4")},
		{netip.MustParsePrefix("fd00:10:244:1::/64"), netip.MustParseAddr("fc00::3")},
	}
	if diff := cmp.Diff(want, plan.Routes, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	const rules = `table inet kindnetlite
delete table inet kindnetlite
table inet kindnetlite {
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		ip saddr { 10.244.0.0/24 } ip daddr != { 10.244.0.0/16 } fib daddr type != local masquerade
		ip6 saddr { fd00:10:244::/64 } ip6 daddr != { fd00:10:244::/56 } fib daddr type != local masquerade
	}
}
`
	if diff := cmp.Diff(rules, plan.Rules); diff != "" {
		t.Error(diff)
	}
	if !SameNetwork([]byte(plan.Conflist), []byte(plan.Conflist)) {
		t.Error("a configuration differs from itself")
	}
}

func TestDecideTooEarly(t *testing.T) {
	for _, self := range []string{"new", "absent"} {
		if _, err := Decide(nodes(t), self, nil); err == nil {
			t.Errorf("%s: no error", self)
		}
	}
}

func TestSameNetwork(t *testing.T) {
	const own = `{"plugins":[{"type":"ptp","mtu":1500},{"type":"portmap"}]}`
	tests := []struct {
		name, onDisk string
		want         bool
	}{
		{"chained", `{"plugins":[{"mtu":1500,"type":"ptp"},{"type":"portmap"},{"type":"istio-cni"}]}`, true},
		{"other range", `{"plugins":[{"type":"ptp","mtu":1400}]}`, false},
		{"empty", ``, false},
		{"half", `{"plugins":[{"type":"ptp"`, false},
	}
	for _, test := range tests {
		if got := SameNetwork([]byte(test.onDisk), []byte(own)); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}
