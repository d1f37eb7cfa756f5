package envoy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

func where(text string) Locality {
	parts := append(strings.Split(text, "/"), "", "")
	return Locality{parts[0], parts[1], parts[2]}
}

// around are endpoints in several places, with what labels compare.
func around() []Endpoint {
	out := []Endpoint{
		{Address: "10.0.0.1", Locality: where("r1/z1/s1"), Node: "n1", Labels: map[string]string{"version": "v1"}},
		{Address: "10.0.0.2", Locality: where("r1/z1/s2"), Node: "n2", Labels: map[string]string{"version": "v2"}},
		{Address: "10.0.0.3", Locality: where("r1/z2/s1"), Node: "n3", Weight: 3},
		{Address: "10.0.0.4", Locality: where("r2/z1/s1"), Node: "n4", Unhealthy: true},
		{Address: "10.0.0.5", Locality: where("r3/z1/s1"), Node: "n5", Network: "far"},
		{Address: "10.0.0.6", Locality: where("")},
	}
	for i := range out {
		out[i].Port = 80
	}
	return out
}

// lines are priority weight locality: addresses.
func lines(cla *endpointv3.ClusterLoadAssignment) []string {
	var out []string
	for _, g := range cla.Endpoints {
		var addresses []string
		for _, e := range g.LbEndpoints {
			text, _, _ := strings.Cut(e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress(), "!")
			addresses = append(addresses, text[len("10.0.0."):])
		}
		l := g.GetLocality()
		out = append(out, fmt.Sprintf("P%d w%d %s/%s/%s: %s", g.Priority, g.LoadBalancingWeight.GetValue(), l.Region, l.Zone, l.SubZone, strings.Join(addresses, ",")))
	}
	return out
}

func TestLocalities(t *testing.T) {
	detects := &networkingapi.OutlierDetection{}
	off := wrapperspb.Bool(false)
	share := func(from string, to map[string]uint32) []*networkingapi.LocalityLoadBalancerSetting_Distribute {
		return []*networkingapi.LocalityLoadBalancerSetting_Distribute{{From: from, To: to}}
	}
	ownNode := &workload.LoadBalancing{Mode: workload.LoadBalancing_STRICT, RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_NODE}}
	plain := []string{"P0 w1 //: 6", "P0 w1 r1/z1/s1: 1", "P0 w1 r1/z1/s2: 2", "P0 w3 r1/z2/s1: 3", "P0 w1 r2/z1/s1: 4", "P0 w1 r3/z1/s1: 5"}
	for _, test := range []struct {
		name    string
		mesh    *networkingapi.LocalityLoadBalancerSetting
		setting *networkingapi.LocalityLoadBalancerSetting
		outlier *networkingapi.OutlierDetection
		prefers *workload.LoadBalancing
		from    Whereabouts
		want    []string
	}{
		{name: "nothing notices failures", from: Whereabouts{Locality: where("r1/z1/s1")}, want: plain},
		{name: "by distance", outlier: detects, from: Whereabouts{Locality: where("r1/z1/s1")}, want: []string{
			"P0 w1 r1/z1/s1: 1", "P1 w1 r1/z1/s2: 2", "P2 w3 r1/z2/s1: 3", "P3 w1 //: 6", "P3 w1 r2/z1/s1: 4", "P3 w1 r3/z1/s1: 5",
		}},
		{name: "from elsewhere", outlier: detects, from: Whereabouts{Locality: where("r2/z9")}, want: []string{
			"P0 w1 r2/z1/s1: 4", "P1 w1 //: 6", "P1 w1 r1/z1/s1: 1", "P1 w1 r1/z1/s2: 2", "P1 w3 r1/z2/s1: 3", "P1 w1 r3/z1/s1: 5",
		}},
		{name: "off in the rule", outlier: detects, setting: &networkingapi.LocalityLoadBalancerSetting{Enabled: off}, from: Whereabouts{Locality: where("r1/z1/s1")}, want: plain},
		{name: "off in the mesh", outlier: detects, mesh: &networkingapi.LocalityLoadBalancerSetting{Enabled: off}, from: Whereabouts{Locality: where("r1/z1/s1")}, want: plain},
		{
			name: "on in the rule", outlier: detects, mesh: &networkingapi.LocalityLoadBalancerSetting{Enabled: off},
			setting: &networkingapi.LocalityLoadBalancerSetting{Enabled: wrapperspb.Bool(true)}, from: Whereabouts{Locality: where("r3")},
			want: []string{"P0 w1 r3/z1/s1: 5", "P1 w1 //: 6", "P1 w1 r1/z1/s1: 1", "P1 w1 r1/z1/s2: 2", "P1 w3 r1/z2/s1: 3", "P1 w1 r2/z1/s1: 4"},
		},
		{
			name: "failover of regions", outlier: detects,
			setting: &networkingapi.LocalityLoadBalancerSetting{Failover: []*networkingapi.LocalityLoadBalancerSetting_Failover{{From: "r1", To: "r3"}}},
			from:    Whereabouts{Locality: where("r1/z2/s1")},
			want:    []string{"P0 w3 r1/z2/s1: 3", "P1 w1 r1/z1/s1: 1", "P1 w1 r1/z1/s2: 2", "P2 w1 r3/z1/s1: 5", "P3 w1 //: 6", "P3 w1 r2/z1/s1: 4"},
		},
		{
			name: "priority by labels", outlier: detects,
			setting: &networkingapi.LocalityLoadBalancerSetting{FailoverPriority: []string{labelRegion, "version"}},
			from:    Whereabouts{Locality: where("r1/z9/s9"), Labels: map[string]string{"version": "v2"}},
			want:    []string{"P0 w1 r1/z1/s2: 2", "P1 w1 r1/z1/s1: 1", "P1 w3 r1/z2/s1: 3", "P2 w1 //: 6", "P2 w1 r2/z1/s1: 4", "P2 w1 r3/z1/s1: 5"},
		},
		{
			name: "priority by labels with values", outlier: detects,
			setting: &networkingapi.LocalityLoadBalancerSetting{FailoverPriority: []string{"version=v1"}}, from: Whereabouts{Labels: map[string]string{"version": "v2"}},
			want: []string{"P0 w1 r1/z1/s1: 1", "P1 w1 //: 6", "P1 w1 r1/z1/s2: 2", "P1 w3 r1/z2/s1: 3", "P1 w1 r2/z1/s1: 4", "P1 w1 r3/z1/s1: 5"},
		},
		{
			name: "what the service prefers", from: Whereabouts{Locality: where("r1/z2"), Node: "n3"},
			prefers: &workload.LoadBalancing{Mode: workload.LoadBalancing_FAILOVER, RoutingPreference: []workload.LoadBalancing_Scope{
				workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE,
			}},
			want: []string{"P0 w3 r1/z2/s1: 3", "P1 w1 r1/z1/s1: 1", "P1 w1 r1/z1/s2: 2", "P2 w1 //: 6", "P2 w1 r2/z1/s1: 4", "P3 w1 r3/z1/s1: 5"},
		},
		{name: "only the own node", from: Whereabouts{Locality: where("r1/z2"), Node: "n3"}, prefers: ownNode, want: []string{"P0 w3 r1/z2/s1: 3"}},
		{name: "only the own node, where none is", from: Whereabouts{Locality: where("r1/z2"), Node: "n9"}, prefers: ownNode},
		{name: "only the own node, which is not known", prefers: ownNode},
		{
			name: "only the own node, with localities off", from: Whereabouts{Node: "n2"}, prefers: ownNode, outlier: detects,
			setting: &networkingapi.LocalityLoadBalancerSetting{Enabled: off}, want: []string{"P0 w1 r1/z1/s2: 2"},
		},
		{name: "only the own node, and failover", from: Whereabouts{Node: "n1"}, prefers: ownNode, outlier: detects, want: []string{"P0 w1 r1/z1/s1: 1"}},
		{
			name: "only the own node, which gets no share", from: Whereabouts{Locality: where("r1/z1/s1"), Node: "n1"}, prefers: ownNode,
			setting: &networkingapi.LocalityLoadBalancerSetting{Distribute: share("r1/*", map[string]uint32{"r2": 100})},
		},
		{
			name: "shares", from: Whereabouts{Locality: where("r1/z1/s1")},
			setting: &networkingapi.LocalityLoadBalancerSetting{Distribute: share("r1/*", map[string]uint32{"r1/z1/*": 70, "r1/*": 20, "r2/*": 10, "r3": 0})},
			want:    []string{"P0 w35 r1/z1/s1: 1", "P0 w35 r1/z1/s2: 2", "P0 w20 r1/z2/s1: 3", "P0 w10 r2/z1/s1: 4"},
		},
		{
			name: "shares of others", from: Whereabouts{Locality: where("r9")},
			setting: &networkingapi.LocalityLoadBalancerSetting{Distribute: share("r1/*", map[string]uint32{"r2": 100})}, want: plain,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			mesh := Mesh{Config: &meshapi.MeshConfig{LocalityLbSetting: test.mesh}}
			policy := &networkingapi.TrafficPolicy{OutlierDetection: test.outlier, LoadBalancer: &networkingapi.LoadBalancerSettings{LocalityLbSetting: test.setting}}
			l := mesh.Localities(policy, test.prefers)
			endpoints := around()
			got := lines(l.Assignment("c", endpoints, &test.from))
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(test.want, "\n  "))
			}
			slices.Reverse(endpoints)
			if again := lines(l.Assignment("c", endpoints, &test.from)); !slices.Equal(got, again) {
				t.Errorf("another order gives\n  %s", strings.Join(again, "\n  "))
			}
			if relative := !slices.Equal(got, plain); relative && !l.Relative() {
				t.Error("proxies at other places would get the same")
			}
		})
	}
}

// Who goes by way of a waypoint leaves it to that to choose among the endpoints of its own node.
func TestOnlyOwnNodeBehindWaypoint(t *testing.T) {
	prefers := &workload.LoadBalancing{Mode: workload.LoadBalancing_STRICT, RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_NODE}}
	endpoints := []Endpoint{{Address: "10.96.0.1", Port: 80, HBONE: true, Waypoint: netip.MustParseAddrPort("10.0.0.9:15008")}, {Address: "10.0.0.2", Port: 80, Node: "n2"}}
	got := Mesh{}.Localities(nil, prefers).Assignment("c", endpoints, &Whereabouts{Node: "n1"})
	if len(got.GetEndpoints()) != 1 || len(got.GetEndpoints()[0].GetLbEndpoints()) != 1 || got.GetEndpoints()[0].GetLbEndpoints()[0].GetMetadata() == nil {
		t.Errorf("%v", got)
	}
	if len(endpoints) != 2 || endpoints[1].Node != "n2" {
		t.Errorf("endpoints of the caller are changed: %v", endpoints)
	}
}

func TestPatternsOfLocalities(t *testing.T) {
	for _, test := range []struct {
		pattern, at string
		want        bool
	}{
		{"*", "r/z/s", true},
		{"r", "r/z/s", true},
		{"r/*", "r/z/s", true},
		{"r/z", "r/z/s", true},
		{"r/z/*", "r/z/s", true},
		{"r/z/s", "r/z/s", true},
		{"*/z", "r/z/s", true},
		{"r/z/t", "r/z/s", false},
		{"r/y", "r/z/s", false},
		{"q", "r/z/s", false},
		{"", "r/z/s", false},
	} {
		if got := matchesLocality(test.pattern, where(test.at)); got != test.want {
			t.Errorf("%q matches %q: %t", test.pattern, test.at, got)
		}
	}
}

func TestClusterOfLocalities(t *testing.T) {
	prefers := &workload.LoadBalancing{Mode: workload.LoadBalancing_FAILOVER, RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_ZONE}}
	made := func(c Cluster) *clusterv3.Cluster {
		c.Mesh, c.Name = testMesh(), "c"
		return c.Resource()
	}
	if c := made(Cluster{}); c.CommonLbConfig.GetLocalityWeightedLbConfig() == nil || c.CommonLbConfig.HealthyPanicThreshold != nil {
		t.Errorf("%v", c.CommonLbConfig)
	}
	if c := made(Cluster{Prefers: prefers}); c.CommonLbConfig.HealthyPanicThreshold == nil || c.CommonLbConfig.HealthyPanicThreshold.Value != 0 {
		t.Errorf("hosts that are not ready are used in panic: %v", c.CommonLbConfig)
	}
	for _, c := range []Cluster{{Proxyless: true}, {Resolution: ByOriginal}, {Policy: &networkingapi.TrafficPolicy{LoadBalancer: &networkingapi.LoadBalancerSettings{
		LocalityLbSetting: &networkingapi.LocalityLoadBalancerSetting{Enabled: wrapperspb.Bool(false)},
	}}}} {
		if c := made(c); c.CommonLbConfig.GetLocalityWeightedLbConfig() != nil {
			t.Errorf("%v", c.CommonLbConfig)
		}
	}
}

func TestOlderWaysToAsk(t *testing.T) {
	lb := &networkingapi.LoadBalancerSettings{WarmupDurationSecs: durationpb.New(30e9)} //nolint:staticcheck // that is what is tested
	if w := Warmup(lb); w.GetDuration().AsDuration() != 30e9 {
		t.Errorf("%v", w)
	}
	lb.Warmup = &networkingapi.WarmupConfiguration{Duration: durationpb.New(10e9)}
	if w := Warmup(lb); w.GetDuration().AsDuration() != 10e9 {
		t.Errorf("%v", w)
	}
}
