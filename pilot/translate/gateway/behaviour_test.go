package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

// seen is what a backend answers: the request as it came, and by which cluster.
type seen struct {
	Cluster, Method, Host, URI string
	Header                     http.Header
}

// TestBehaviour asks a real Envoy what it does with the routes of testdata/behaviour.yaml: what users mean by them, and not only
// what they are translated to. It runs with -envoy only.
func TestBehaviour(t *testing.T) {
	if *envoy == "" {
		return
	}
	data, err := os.ReadFile("testdata/behaviour.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := decodeWorld(t, "behaviour", data)
	_, classic, problems := GatewayConfig(w, w.gatewayInput("default", []string{"istio=ingressgateway"}))
	_, api, more := GatewayConfig(w, w.gatewayInput("default", []string{"gateway.networking.k8s.io/gateway-name=web"}))
	if len(problems)+len(more) > 0 {
		t.Fatal(texts(problems), texts(more))
	}
	waypoint, found := WaypointRoutes(w, w.waypointInput("default/waypoint", "a.default.svc.cluster.local", 80))
	if len(found) > 0 {
		t.Fatal(texts(found))
	}
	ports := runEnvoy(t, append(append(classic, api...), waypoint))
	for _, c := range behaviours() {
		t.Run(c.name, func(t *testing.T) { c.run(t, ports) })
	}
	t.Run("weights", func(t *testing.T) {
		shares(t, ports["http.8080"], "/weighted", map[string]float64{"v1": 0.7, "v2": 0.3})
	})
	t.Run("chances", func(t *testing.T) {
		shares(t, ports["http.8081"], "/chance", map[string]float64{"a": 0.5, "b": 0.3, "302": 0.2})
	})
}

func runEnvoy(t *testing.T, configs []*routev3.RouteConfiguration) map[string]string {
	t.Helper()
	boot := &bootstrapv3.Bootstrap{StaticResources: &bootstrapv3.Bootstrap_StaticResources{}}
	ports := map[string]string{}
	clusters := map[string]bool{}
	for i, c := range configs {
		l := listenerFor(t, i, c)
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := free.Addr().(*net.TCPAddr).Port
		if err := free.Close(); err != nil {
			t.Fatal(err)
		}
		l.Address = socketAddress(port)
		ports[c.Name] = fmt.Sprintf("127.0.0.1:%d", port)
		boot.StaticResources.Listeners = append(boot.StaticResources.Listeners, l)
		for _, name := range clustersOf(c) {
			clusters[name] = true
		}
	}
	for name := range clusters {
		if name != unknownCluster && !strings.Contains(name, "missing") {
			boot.StaticResources.Clusters = append(boot.StaticResources.Clusters, backendCluster(t, name))
		}
	}
	data, err := protojson.Marshal(boot)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "boot.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, *envoy, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
	})
	for _, address := range ports {
		deadline := time.Now().Add(20 * time.Second)
		for {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	return ports
}

func socketAddress(port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func clustersOf(c *routev3.RouteConfiguration) []string {
	var out []string
	for _, h := range c.VirtualHosts {
		for _, r := range h.Routes {
			a := r.GetRoute()
			if a.GetCluster() != "" {
				out = append(out, a.GetCluster())
			}
			for _, w := range a.GetWeightedClusters().GetClusters() {
				out = append(out, w.Name)
			}
			for _, m := range a.GetRequestMirrorPolicies() {
				out = append(out, m.Cluster)
			}
		}
	}
	return out
}

// backendCluster is a server that tells what it sees. /fail answers 503, /slow after a second.
func backendCluster(t *testing.T, name string) *clusterv3.Cluster {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}
		rw.Header().Set("Server-Said", "hello")
		if strings.HasSuffix(r.URL.Path, "/fail") {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(rw).Encode(seen{name, r.Method, r.Host, r.RequestURI, r.Header})
	}))
	t.Cleanup(server.Close)
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: socketAddress(server.Listener.Addr().(*net.TCPAddr).Port),
			}}}},
		}}},
	}
}

// behaviour is a request and what is to come of it. Empty wants are not looked at.
type behaviour struct {
	name, config, request, host string
	header                      map[string]string
	status                      int
	cluster, uri, upstreamHost  string
	// upstream are headers that the backend sees, response those of the answer; "-" is none.
	upstream, response map[string]string
}

func (b behaviour) run(t *testing.T, ports map[string]string) {
	method, path, ok := strings.Cut(b.request, " ")
	if !ok {
		method, path = "GET", b.request
	}
	config := b.config
	if config == "" {
		config = "http.8080"
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+ports[config]+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = b.host
	for k, v := range b.header {
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != b.status {
		t.Errorf("status %d, want %d (%v)", resp.StatusCode, b.status, resp.Header)
	}
	same := func(what string, want map[string]string, got http.Header) {
		for k, v := range want {
			have := strings.Join(got.Values(k), ",")
			if have == "" {
				have = "-"
			}
			if have != v {
				t.Errorf("%s %s: %q, want %q", what, k, have, v)
			}
		}
	}
	same("response", b.response, resp.Header)
	if b.cluster == "" {
		return
	}
	var s seen
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Cluster, b.cluster) {
		t.Errorf("cluster %s, want %s", s.Cluster, b.cluster)
	}
	if b.uri != "" && s.URI != b.uri {
		t.Errorf("URI %s, want %s", s.URI, b.uri)
	}
	if b.upstreamHost != "" && s.Host != b.upstreamHost {
		t.Errorf("host %s, want %s", s.Host, b.upstreamHost)
	}
	same("upstream", b.upstream, s.Header)
}

// shares asks 2000 times, and counts clusters, or the status of what comes from none.
func shares(t *testing.T, address, path string, want map[string]float64) {
	t.Helper()
	got := map[string]int{}
	const n = 2000
	for range n {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		var s seen
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			s.Cluster = fmt.Sprint(resp.StatusCode)
		}
		_ = resp.Body.Close()
		for name := range want {
			if s.Cluster == name || strings.Contains(s.Cluster, "|"+name+"|") || strings.Contains(s.Cluster, "|"+name+".") {
				got[name]++
			}
		}
	}
	for name, share := range want {
		if have := float64(got[name]) / n; have < share-0.04 || have > share+0.04 {
			t.Errorf("%s: %.3f, want %.3f", name, have, share)
		}
	}
}
