package admin_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/admin"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/listener"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	counters "github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

const reviews = "inbound-vip|9080|http/v1|reviews.default.svc.cluster.local"

// waypoint is an engine as a waypoint has it.
type waypoint struct{ drained bool }

func (w *waypoint) Config() *l7.Config {
	c := l7.NewConfig()
	c.Listeners["main_internal"] = &l7.Listener{Internal: true}
	c.Listeners["connect_terminate"] = &l7.Listener{}
	return c
}

func (w *waypoint) Listeners() []listener.State {
	return []listener.State{{Name: "connect_terminate", Address: netip.MustParseAddrPort("[::]:15008")}}
}

func (w *waypoint) Clusters() []upstream.ClusterState {
	return []upstream.ClusterState{{
		Name: reviews, Cluster: &l7.Cluster{EDSName: reviews, Breakers: l7.Breakers{MaxConnections: 7}}, Stats: upstream.ClusterStats{RqTotal: 5},
		Hosts: []upstream.HostState{
			{Endpoint: &l7.Endpoint{Internal: "connect_originate", ID: "10.0.1.7:9080", Weight: 2, Locality: l7.Locality{Region: "r", Zone: "z"}}, RqTotal: 5},
			{Endpoint: &l7.Endpoint{Address: netip.MustParseAddrPort("[fd00::1]:80"), Health: l7.Unhealthy}},
			{Endpoint: &l7.Endpoint{Host: "example.com", Port: 443, Health: l7.Draining}},
		},
	}}
}

func (w *waypoint) Stats() proxy.Stats { return proxy.Stats{} }
func (w *waypoint) DrainListeners()    { w.drained = true }

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	out, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func revision(t *testing.T, version string, m proto.Message) *xds.Revision {
	return &xds.Revision{Version: version, Content: pack(t, m), Updated: time.Unix(1, 0)}
}

func snapshot(t *testing.T) xds.Snapshot {
	inline := &hcmv3.HttpConnectionManager{RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: "default"}}}
	chain := &listenerv3.FilterChain{Filters: []*listenerv3.Filter{{Name: "h", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, inline)}}}}
	strange := &anypb.Any{TypeUrl: "type.googleapis.com/unknown.Type", Value: []byte{1}}
	return xds.Snapshot{
		Started: true,
		Listeners: []xds.Resource{{
			Name: "main_internal", Active: revision(t, "1", &listenerv3.Listener{Name: "main_internal", FilterChains: []*listenerv3.FilterChain{chain, chain}}),
			Warming: revision(t, "2", &listenerv3.Listener{Name: "main_internal"}),
			Failure: &xds.Failure{Revision: *revision(t, "3", &listenerv3.Listener{Name: "main_internal"}), Details: "filter_chains[0]: not supported"},
		}},
		Clusters: []xds.Resource{
			{Name: reviews, Active: revision(t, "1", &clusterv3.Cluster{Name: reviews})},
			{Name: "warming", Warming: revision(t, "1", &clusterv3.Cluster{Name: "warming"})},
			{Name: "refused", Failure: &xds.Failure{Revision: xds.Revision{Content: strange}, Details: "no"}},
		},
		Routes: []xds.Resource{{
			Name: "r", Active: revision(t, "1", &routev3.RouteConfiguration{Name: "r"}),
			Failure: &xds.Failure{Revision: xds.Revision{Content: strange}, Details: "virtual_hosts[0]: no"},
		}},
	}
}

type fixture struct {
	*httptest.Server
	engine *waypoint
	quit   bool
	ready  *admin.Readiness
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	authority, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	id := spiffe.ID{TrustDomain: "td", Namespace: "default", ServiceAccount: "waypoint"}
	workload, err := authority.Issue(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{engine: &waypoint{}, ready: admin.NewReadiness("certificate")}
	_, levels := telemetry.NewLogger(t.Output(), telemetry.Options{})
	s := &admin.Server{
		Engine: f.engine, Snapshot: func() xds.Snapshot { return snapshot(t) },
		Certificates: func() []certs.State { return []certs.State{{Identity: id, Workload: workload}, {Identity: id}} },
		Bootstrap:    &bootstrapv3.Bootstrap{StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{{Name: "agent"}}}},
		Readiness:    f.ready, Samples: func() []counters.Sample { return counters.Samples(f.engine, admin.Discovery(snapshot(t))...) },
		Gatherer: prometheus.NewRegistry(), Levels: levels, Started: time.Now(), Quit: func() { f.quit = true }, Log: slog.New(slog.DiscardHandler),
	}
	f.Server = httptest.NewServer(s.Handler())
	t.Cleanup(f.Close)
	return f
}

func (f *fixture) ask(t *testing.T, method, path string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := f.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func decode[M proto.Message](t *testing.T, text string, into M) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	return into
}

// section finds a section of a dump.
func section[M proto.Message](t *testing.T, dump *adminv3.ConfigDump, into M) M {
	t.Helper()
	for _, packed := range dump.GetConfigs() {
		if packed.MessageIs(into) {
			if err := packed.UnmarshalTo(into); err != nil {
				t.Fatal(err)
			}
			return into
		}
	}
	t.Fatalf("no %T in the dump", into)
	return into
}

// What serves, what waits and what was refused are told apart, also when this binary does not know a type of what was refused.
func TestDumpStates(t *testing.T) {
	f := newFixture(t)
	_, text := f.ask(t, http.MethodGet, "/config_dump?include_eds")
	dump := decode(t, text, &adminv3.ConfigDump{})
	l := section(t, dump, &adminv3.ListenersConfigDump{}).GetDynamicListeners()
	if len(l) != 1 || l[0].GetActiveState().GetVersionInfo() != "1" || l[0].GetWarmingState().GetVersionInfo() != "2" ||
		l[0].GetErrorState().GetVersionInfo() != "3" || l[0].GetErrorState().GetDetails() != "filter_chains[0]: not supported" || l[0].GetErrorState().GetFailedConfiguration() == nil {
		t.Errorf("listeners: %v", l)
	}
	c := section(t, dump, &adminv3.ClustersConfigDump{})
	if len(c.GetStaticClusters()) != 1 || len(c.GetDynamicActiveClusters()) != 1 || len(c.GetDynamicWarmingClusters()) != 1 {
		t.Errorf("clusters: %v", c)
	}
	r := section(t, dump, &adminv3.RoutesConfigDump{})
	if len(r.GetStaticRouteConfigs()) != 1 || len(r.GetDynamicRouteConfigs()) != 1 {
		t.Errorf("routes: %v", r)
	}
	if e := r.GetDynamicRouteConfigs()[0].GetErrorState(); e.GetFailedConfiguration() != nil || !strings.HasPrefix(e.GetDetails(), "virtual_hosts[0]: no (not shown: ") {
		t.Errorf("failure: %v", e)
	}
	s := section(t, dump, &adminv3.SecretsConfigDump{})
	if len(s.GetDynamicActiveSecrets()) != 2 || len(s.GetDynamicWarmingSecrets()) != 2 {
		t.Errorf("secrets: %v", s)
	}
	if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "UFJJVkFURSBLRVk") {
		t.Error("a private key is in the dump")
	}
}

func TestDumpParts(t *testing.T) {
	f := newFixture(t)
	for path, want := range map[string]int{
		"/config_dump?resource=dynamic_active_clusters": 1, "/config_dump?resource=static_clusters": 1, "/config_dump?resource=bootstrap": 1,
		"/config_dump?resource=dynamic_warming_clusters": 1, "/config_dump?resource=dynamic_active_clusters&name_regex=outbound.*": 0,
	} {
		_, text := f.ask(t, http.MethodGet, path)
		if got := decode(t, text, &adminv3.ConfigDump{}).GetConfigs(); len(got) != want {
			t.Errorf("%s: %d parts, want %d", path, len(got), want)
		}
	}
	for path, want := range map[string]int{"/config_dump?resource=nothing": 404, "/config_dump?name_regex=(": 400, "/config_dump?mask=x": 400, "/stats?filter=(": 400} {
		if got, text := f.ask(t, http.MethodGet, path); got != want {
			t.Errorf("%s: %d %s", path, got, text)
		}
	}
}

func TestClusters(t *testing.T) {
	f := newFixture(t)
	_, text := f.ask(t, http.MethodGet, "/clusters?format=json")
	status := decode(t, text, &adminv3.Clusters{}).GetClusterStatuses()[1]
	hosts := status.GetHostStatuses()
	if !status.GetAddedViaApi() || status.GetEdsServiceName() != reviews || len(hosts) != 3 {
		t.Fatalf("%v", status)
	}
	internal := hosts[0].GetAddress().GetEnvoyInternalAddress()
	if internal.GetServerListenerName() != "connect_originate" || internal.GetEndpointId() != "10.0.1.7:9080" || hosts[0].GetHealthStatus().GetEdsHealthStatus().String() != "HEALTHY" {
		t.Errorf("%v", hosts[0])
	}
	_, text = f.ask(t, http.MethodGet, "/clusters")
	for _, line := range []string{
		reviews + "::default_priority::max_connections::7", reviews + "::added_via_api::true",
		reviews + "::envoy://connect_originate/10.0.1.7:9080::rq_total::5", reviews + "::envoy://connect_originate/10.0.1.7:9080::health_flags::healthy",
		reviews + "::envoy://connect_originate/10.0.1.7:9080::weight::2", reviews + "::envoy://connect_originate/10.0.1.7:9080::region::r",
		reviews + "::[fd00::1]:80::health_flags::/failed_eds_health", reviews + "::example.com:443::health_flags::/eds_status_draining",
		"agent::added_via_api::false",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}

func TestListeners(t *testing.T) {
	f := newFixture(t)
	if _, text := f.ask(t, http.MethodGet, "/listeners"); text != "connect_terminate::[::]:15008\nmain_internal::envoy://main_internal/\n" {
		t.Errorf("%q", text)
	}
	_, text := f.ask(t, http.MethodGet, "/listeners?format=json")
	if got := decode(t, text, &adminv3.Listeners{}).GetListenerStatuses(); len(got) != 2 || got[0].GetLocalAddress().GetSocketAddress().GetPortValue() != 15008 {
		t.Errorf("%v", got)
	}
}

func TestStateFollowsReadiness(t *testing.T) {
	f := newFixture(t)
	for _, step := range []struct {
		name   string
		do     func()
		status int
		state  string
	}{
		{"a task is left", func() {}, 503, "INITIALIZING\n"},
		{"all is done", func() { f.ready.Done("certificate") }, 200, "LIVE\n"},
		{"a person fails it", func() { f.ask(t, http.MethodPost, "/healthcheck/fail") }, 503, "DRAINING\n"},
		{"and undoes that", func() { f.ask(t, http.MethodPost, "/healthcheck/ok") }, 200, "LIVE\n"},
		{"the end", func() { f.ready.End() }, 503, "DRAINING\n"},
	} {
		step.do()
		if status, text := f.ask(t, http.MethodGet, "/ready"); status != step.status || text != step.state {
			t.Errorf("%s: %d %q", step.name, status, text)
		}
		_, text := f.ask(t, http.MethodGet, "/server_info")
		if got := decode(t, text, &adminv3.ServerInfo{}).GetState().String(); got != strings.TrimSpace(step.state) {
			t.Errorf("%s: %s", step.name, got)
		}
	}
}

func TestCertificates(t *testing.T) {
	f := newFixture(t)
	_, text := f.ask(t, http.MethodGet, "/certs")
	got := decode(t, text, &adminv3.Certificates{}).GetCertificates()
	if len(got) != 2 || len(got[0].GetCaCert()) != 1 || len(got[0].GetCertChain()) != 1 || got[0].GetCertChain()[0].GetSubjectAltNames()[0].GetUri() != "spiffe://td/ns/default/sa/waypoint" {
		t.Errorf("%v", got)
	}
}

func TestCommands(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/drain_listeners", "/quitquitquit", "/healthcheck/fail"} {
		if status, _ := f.ask(t, http.MethodGet, path); status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, status)
		}
		if status, _ := f.ask(t, http.MethodPost, path); status != http.StatusOK {
			t.Errorf("POST %s: %d", path, status)
		}
	}
	if !f.engine.drained || !f.quit {
		t.Error("nothing was drained or ended")
	}
	_, help := f.ask(t, http.MethodGet, "/help")
	for _, path := range []string{"/certs", "/clusters", "/config_dump", "/memory", "/logging", "/stats/prometheus"} {
		if !strings.Contains(help, "GET "+path+" ") {
			t.Errorf("%s is not in the help", path)
		}
		if status, text := f.ask(t, http.MethodGet, path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, _ := f.ask(t, http.MethodGet, "/nothing"); status != http.StatusNotFound {
		t.Error("an unknown path is answered")
	}
}
