package envoy

import (
	"net/netip"
	"testing"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

func meshWith(metadata map[string]string) Mesh {
	m := Mesh{Config: &meshapi.MeshConfig{DefaultConfig: &meshapi.ProxyConfig{ProxyMetadata: metadata}}}
	m.TrustDomain = "cluster.local"
	return m
}

// TestOptions is for what is safer than in Istio, and for what switches it off.
func TestOptions(t *testing.T) {
	for _, test := range []struct {
		metadata         map[string]string
		cluster, sockets map[string]string
		timeout          time.Duration
	}{
		{nil, nil, nil, time.Minute},
		{map[string]string{
			OptionEndpointIdentity: "any", OptionLocalEndpoints: "true", OptionFoldedHeaders: "yes", OptionHTTP2Paths: "", OptionHeadersTimeout: "soon",
		}, nil, nil, time.Minute},
		{map[string]string{
			OptionEndpointIdentity: "trust-domain", OptionLocalEndpoints: "allow", OptionFoldedHeaders: "unfold", OptionHTTP2Paths: "any", OptionHeadersTimeout: "5s",
		}, map[string]string{"endpoint_identity": "trust-domain", "local_endpoints": "allow"}, map[string]string{"folded_headers": "unfold", "http2_paths": "any"}, 5 * time.Second},
		{map[string]string{OptionHeadersTimeout: "0s"}, nil, nil, 0},
	} {
		mesh := meshWith(test.metadata)
		own := map[string]string{}
		clusters := append(ProxyClusters(mesh, false, false), Cluster{Mesh: mesh, Name: "c", Host: "h"}.Resource())
		for _, c := range clusters {
			got := c.GetMetadata().GetFilterMetadata()[MeshMetadata].GetFields()
			if len(got) != len(test.cluster) {
				t.Errorf("%v: cluster %s says %v", test.metadata, c.GetName(), got)
			}
			for k, v := range test.cluster {
				if got[k].GetStringValue() != v {
					t.Errorf("%v: cluster %s says %v", test.metadata, c.GetName(), got)
				}
			}
		}
		g := Gateway{Mesh: mesh, Servers: []gateway.Server{{Name: "0.0.0.0_8080", Port: 8080, Protocol: gateway.HTTP, Chains: []gateway.ServerChain{{RouteName: "http.8080"}}}}}
		l := g.Listeners()[1]
		for k, v := range l.GetMetadata().GetFilterMetadata()[MeshMetadata].GetFields() {
			own[k] = v.GetStringValue()
		}
		if len(own) != len(test.sockets) || own["folded_headers"] != test.sockets["folded_headers"] || own["http2_paths"] != test.sockets["http2_paths"] {
			t.Errorf("%v: the listener says %v", test.metadata, own)
		}
		h := &hcmv3.HttpConnectionManager{}
		if err := l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(h); err != nil {
			t.Fatal(err)
		}
		if got := h.GetRequestHeadersTimeout(); got.AsDuration() != test.timeout {
			t.Errorf("%v: heads are waited for %v", test.metadata, got)
		}
	}
}

func TestTransports(t *testing.T) {
	mesh := meshWith(nil)
	manual := meshWith(nil)
	manual.Config.EnableAutoMtls = no()
	tls := func(mode networkingapi.ClientTLSSettings_TLSmode) *networkingapi.TrafficPolicy {
		return &networkingapi.TrafficPolicy{Tls: &networkingapi.ClientTLSSettings{Mode: mode}}
	}
	for _, test := range []struct {
		mesh   Mesh
		policy *networkingapi.TrafficPolicy
		want   []string
	}{
		{mesh, nil, []string{"hbone", "tlsMode-istio", "tlsMode-disabled"}},
		{manual, nil, []string{"hbone", "tlsMode-disabled"}},
		{mesh, tls(networkingapi.ClientTLSSettings_DISABLE), []string{"hbone", "tlsMode-disabled"}},
		{mesh, tls(networkingapi.ClientTLSSettings_SIMPLE), []string{"hbone", "tlsMode-user"}},
		{mesh, tls(networkingapi.ClientTLSSettings_ISTIO_MUTUAL), []string{"hbone", "tlsMode-user"}},
	} {
		var got []string
		for _, m := range (Cluster{Mesh: test.mesh, Name: "c", Host: "h", Policy: test.policy}).Resource().GetTransportSocketMatches() {
			got = append(got, m.GetName())
		}
		if len(got) != len(test.want) {
			t.Errorf("%v: %v, want %v", test.policy, got, test.want)
			continue
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%v: %v, want %v", test.policy, got, test.want)
			}
		}
	}
}

// TestTCPChains is where connections without requests go at one port: by address, and by the names that TLS asks for.
func TestTCPChains(t *testing.T) {
	to := func(cluster string) []gateway.TCPTarget { return []gateway.TCPTarget{{Cluster: cluster, Weight: 1}} }
	s := WaypointService{Host: "h", Port: 443, Protocol: TLS, TCP: []gateway.TCPRoute{
		{SNI: []string{"a.test", "*.b.test"}, Targets: to("names")},
		{Destinations: []string{"10.1.0.0/16"}, Targets: to("range")},
		{Targets: to("rest")},
	}}
	if got := s.tcpChainAt(netip.MustParseAddr("10.1.2.3")); got != "inbound-vip|443||h-tcp-1" {
		t.Error(got)
	}
	if got := s.tcpChainAt(netip.MustParseAddr("10.2.2.3")); got != "inbound-vip|443||h-tcp" {
		t.Error(got)
	}
	var names []string
	for _, c := range s.Chains(Mesh{}) {
		names = append(names, c.GetName())
	}
	if len(names) != 3 || names[0] != "inbound-vip|443||h-tcp-0" || names[2] != "inbound-vip|443||h-tcp" {
		t.Error(names)
	}
	l := (Waypoint{Services: []WaypointService{s}, Chains: s.Chains(Mesh{})}).mainInternal()
	if len(l.GetListenerFilters()) != 2 || l.GetListenerFilters()[1].GetName() != "envoy.filters.listener.tls_inspector" {
		t.Error(l.GetListenerFilters())
	}
}
