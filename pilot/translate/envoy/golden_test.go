package envoy

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

var update = flag.Bool("update", false, "write the golden files")

func testMesh() Mesh {
	return Mesh{Mesh: ambient.Mesh{ClusterID: "Kubernetes", Domain: "cluster.local", TrustDomain: "cluster.local", TrustDomainAliases: []string{"old.example", "cluster.local"}, RootNamespace: "istio-system"}}
}

// asYAML prints messages one after the other, their fields by name.
func asYAML[M proto.Message](t *testing.T, messages ...M) string {
	t.Helper()
	var out strings.Builder
	for _, m := range messages {
		raw, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(text)
		if v, ok := any(m).(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				t.Errorf("invalid: %v", err)
			}
		}
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".yaml")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s:\n%s", file, got)
	}
}

const reviews = "reviews.default.svc.cluster.local"

func served(port uint32, p Protocol, vip string) WaypointService {
	return WaypointService{Host: reviews, Port: port, Protocol: p, Addresses: []netip.Addr{netip.MustParseAddr(vip)}}
}

func TestWaypointListeners(t *testing.T) {
	mesh := testMesh()
	for name, services := range map[string][]WaypointService{
		"waypoint-empty": nil,
		"waypoint-http":  {served(9080, HTTP, "10.96.0.7")},
		"waypoint-mixed": {served(9080, HTTP2, "10.96.0.7"), served(9081, TCP, "10.96.0.7"), served(9082, Unknown, "fd00::7")},
	} {
		t.Run(name, func(t *testing.T) {
			w := Waypoint{Mesh: mesh, Services: services}
			for _, s := range services {
				w.Chains = append(w.Chains, s.Chains(mesh)...)
			}
			golden(t, name, asYAML(t, w.Listeners()...))
		})
	}
	t.Run("waypoint-workload", func(t *testing.T) {
		w := Waypoint{Mesh: mesh, Workloads: []WaypointWorkload{{Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.1")}}, {Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.2")}}}}
		golden(t, "waypoint-workload", asYAML(t, w.Listeners()...))
	})
}

func TestGatewayListeners(t *testing.T) {
	g := Gateway{Mesh: testMesh(), Servers: []gateway.Server{
		{Port: 8080, Name: "0.0.0.0_8080", Protocol: gateway.HTTP, Chains: []gateway.ServerChain{{RouteName: "http.8080"}}},
		{Port: 8443, Name: "0.0.0.0_8443", Protocol: gateway.TLS, Chains: []gateway.ServerChain{
			{SNI: []string{"a.example"}, TCP: []gateway.TCPRoute{{Targets: []gateway.TCPTarget{{Cluster: "outbound|443||a", Weight: 1}}}}},
			{SNI: []string{"b.example"}, TCP: []gateway.TCPRoute{{Targets: []gateway.TCPTarget{{Cluster: "outbound|443||a", Weight: 30}, {Cluster: "outbound|443||b", Weight: 70}}}}},
		}},
		{Port: 8444, Name: "0.0.0.0_8444", Protocol: gateway.HTTP, Chains: []gateway.ServerChain{{TLS: &networkingapi.ServerTLSSettings{}, RouteName: "https.8444"}}},
		{Bind: "not an address", Port: 8445, Name: "x", Protocol: gateway.HTTP, Chains: []gateway.ServerChain{{RouteName: "http.8445"}}},
	}}
	golden(t, "gateway", asYAML(t, g.Listeners()...))
}

func TestProxyClusters(t *testing.T) {
	golden(t, "clusters-waypoint", asYAML(t, ProxyClusters(testMesh(), true, false)...))
	golden(t, "clusters-gateway", asYAML(t, ProxyClusters(testMesh(), false, true)...))
}

func TestServiceClusters(t *testing.T) {
	mesh := testMesh()
	mesh.Config = &meshapi.MeshConfig{ConnectTimeout: durationpb.New(5e9)}
	base := Cluster{Mesh: mesh, Name: InboundVIP(9080, "http", "", reviews), Host: reviews, Service: "reviews", Namespace: "default", Port: 9080, Protocol: HTTP}
	edit := func(fn func(*Cluster)) Cluster {
		c := base
		fn(&c)
		return c
	}
	for name, c := range map[string]Cluster{
		"cluster-plain": base,
		"cluster-policy": edit(func(c *Cluster) {
			c.Subset, c.Name, c.Rule = "v1", InboundVIP(9080, "http", "v1", reviews), "default/reviews"
			c.Policy = &networkingapi.TrafficPolicy{
				LoadBalancer:     &networkingapi.LoadBalancerSettings{LbPolicy: &networkingapi.LoadBalancerSettings_Simple{Simple: networkingapi.LoadBalancerSettings_RANDOM}},
				OutlierDetection: &networkingapi.OutlierDetection{Consecutive_5XxErrors: wrapperspb.UInt32(0), ConsecutiveGatewayErrors: wrapperspb.UInt32(3), MinHealthPercent: 10},
				ConnectionPool: &networkingapi.ConnectionPoolSettings{
					Tcp:  &networkingapi.ConnectionPoolSettings_TCPSettings{MaxConnections: 1, ConnectTimeout: durationpb.New(1e9)},
					Http: &networkingapi.ConnectionPoolSettings_HTTPSettings{H2UpgradePolicy: networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE, MaxRequestsPerConnection: 2, MaxConcurrentStreams: 3},
				},
				RetryBudget: &networkingapi.TrafficPolicy_RetryBudget{Percent: wrapperspb.Double(25), MinRetryConcurrency: 5},
			}
		}),
		"cluster-sniffed": edit(func(c *Cluster) { c.Protocol = Unknown }),
		"cluster-tls": edit(func(c *Cluster) {
			c.Policy = &networkingapi.TrafficPolicy{Tls: &networkingapi.ClientTLSSettings{Mode: networkingapi.ClientTLSSettings_MUTUAL, ClientCertificate: "/c", PrivateKey: "/k", CaCertificates: "/ca", Sni: "sni.example", SubjectAltNames: []string{"spiffe://x/y", "dns.example"}}}
		}),
		"cluster-backendtls": edit(func(c *Cluster) {
			c.BackendTLS = &gateway.BackendTLS{
				Policy: route.Origin{Namespace: "default", Name: "reviews"}, ServerName: "a.example.com", Authority: "configmap://default/ca-cacert",
				Names: []gateway.SubjectName{{Name: "a.example.com"}, {Name: "spiffe://a/b", URI: true}},
			}
		}),
		"cluster-backendtls-system": edit(func(c *Cluster) {
			c.Protocol, c.Resolution, c.Endpoints = Unknown, ByDNS, []Endpoint{{Address: "api.example.com", Port: 443}}
			c.BackendTLS = &gateway.BackendTLS{Policy: route.Origin{Namespace: "default", Name: "reviews"}, ServerName: "a.example.com", Names: []gateway.SubjectName{{Name: "a.example.com"}}}
		}),
		"cluster-backendtls-refused": edit(func(c *Cluster) {
			c.BackendTLS = &gateway.BackendTLS{Policy: route.Origin{Namespace: "default", Name: "reviews"}, ServerName: "a.example.com", Refused: "there is no ConfigMap default/ca"}
		}),
		"cluster-dns": edit(func(c *Cluster) {
			c.Resolution, c.Endpoints = ByDNS, []Endpoint{{Address: "api.example.com", Port: 443}}
		}),
		"cluster-original":  edit(func(c *Cluster) { c.Resolution = ByOriginal }),
		"cluster-proxyless": edit(func(c *Cluster) { c.Proxyless = true }),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, asYAML(t, c.Resource())) })
	}
}

func TestAssignment(t *testing.T) {
	endpoints := []Endpoint{
		{Address: "10.1.0.2", Port: 9080, HBONE: true, Identity: "spiffe://cluster.local/ns/default/sa/reviews", Workload: "reviews-v1;default;reviews;v1;Kubernetes", Locality: Locality{Region: "r", Zone: "z2"}},
		{Address: "10.1.0.1", Port: 9080, Locality: Locality{Region: "r", Zone: "z1"}, Weight: 3},
		{Address: "fd00::1", Port: 9080, HBONE: true, Unhealthy: true, Locality: Locality{Region: "r", Zone: "z1"}},
		{Address: "10.96.0.7", Port: 9080, HBONE: true, Waypoint: netip.MustParseAddrPort("10.1.0.9:15008")},
	}
	got := asYAML(t, Assignment("c", endpoints))
	golden(t, "assignment", got)
	// Their order makes no difference.
	endpoints[0], endpoints[3] = endpoints[3], endpoints[0]
	if again := asYAML(t, Assignment("c", endpoints)); again != got {
		t.Error("another order gives another assignment")
	}
}

func TestProxyless(t *testing.T) {
	golden(t, "proxyless", asYAML(t, ProxylessListener(reviews, 9080)))
}

// The settings of a subset replace the rule's one by one; those of a port replace all four, and what they leave out is the default.
func TestEffectivePolicy(t *testing.T) {
	lb := func(s networkingapi.LoadBalancerSettings_SimpleLB) *networkingapi.LoadBalancerSettings {
		return &networkingapi.LoadBalancerSettings{LbPolicy: &networkingapi.LoadBalancerSettings_Simple{Simple: s}}
	}
	outlier := &networkingapi.OutlierDetection{MinHealthPercent: 1}
	port := func(n uint32, l *networkingapi.LoadBalancerSettings) *networkingapi.TrafficPolicy_PortTrafficPolicy {
		return &networkingapi.TrafficPolicy_PortTrafficPolicy{Port: &networkingapi.PortSelector{Number: n}, LoadBalancer: l}
	}
	random, robin := lb(networkingapi.LoadBalancerSettings_RANDOM), lb(networkingapi.LoadBalancerSettings_ROUND_ROBIN)
	rule := &networkingapi.TrafficPolicy{LoadBalancer: random, OutlierDetection: outlier, PortLevelSettings: []*networkingapi.TrafficPolicy_PortTrafficPolicy{port(81, robin)}}
	for _, c := range []struct {
		name    string
		subset  *networkingapi.TrafficPolicy
		port    uint32
		lb      *networkingapi.LoadBalancerSettings
		outlier bool
	}{
		{"rule", nil, 80, random, true},
		{"port of the rule", nil, 81, robin, false},
		{"subset adds", &networkingapi.TrafficPolicy{LoadBalancer: robin}, 80, robin, true},
		{"subset keeps what the port has", &networkingapi.TrafficPolicy{OutlierDetection: outlier}, 81, robin, true},
		{"port of the subset", &networkingapi.TrafficPolicy{LoadBalancer: robin, PortLevelSettings: []*networkingapi.TrafficPolicy_PortTrafficPolicy{port(80, random)}}, 80, random, false},
	} {
		got := EffectivePolicy(rule, c.subset, c.port)
		if got.GetLoadBalancer() != c.lb || (got.GetOutlierDetection() != nil) != c.outlier {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if EffectivePolicy(nil, nil, 80) != nil {
		t.Error("a policy out of nothing")
	}
}
