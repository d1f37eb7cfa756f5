package envoy

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// Waypoints and gateways listen at the families of addresses that they have.
func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		families Families
		want     []string
	}{
		{IPv4, []string{"0.0.0.0"}},
		{DualStack, []string{"0.0.0.0", "::"}},
		{IPv6, []string{"::"}},
	} {
		server := gateway.Server{Port: 8080, Name: "0.0.0.0_8080", Protocol: gateway.HTTP, Chains: []gateway.ServerChain{{RouteName: "http.8080"}}}
		bound := server
		bound.Name, bound.Bind = "10.0.0.9_8080", "10.0.0.9"
		for _, l := range append(Waypoint{Families: c.families}.Listeners(), Gateway{Families: c.families, Servers: []gateway.Server{server, bound}}.Listeners()...) {
			var got []string
			for _, a := range append([]*listenerv3.AdditionalAddress{{Address: l.GetAddress()}}, l.GetAdditionalAddresses()...) {
				if s := a.GetAddress().GetSocketAddress(); s != nil && !s.GetIpv4Compat() && s.GetPortValue() != 0 {
					got = append(got, s.GetAddress())
				}
			}
			want := c.want
			switch {
			case l.GetName() == bound.Name:
				want = []string{bound.Bind}
			case l.GetInternalListener() != nil:
				want = nil
			}
			if len(got) != len(want) || len(got) > 0 && (got[0] != want[0] || got[len(got)-1] != want[len(want)-1]) {
				t.Errorf("families %d: %s listens at %q, want %q", c.families, l.GetName(), got, want)
			}
		}
	}
}
