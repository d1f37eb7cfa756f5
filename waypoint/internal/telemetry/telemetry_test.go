package telemetry_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/listener"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// scrape reads what a scraper would.
func scrape(t *testing.T, g prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	server := httptest.NewServer(promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series are "name{a="b",…} value" lines of the families whose names have the prefix.
func series(families map[string]*dto.MetricFamily, prefix string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		for _, m := range families[name].GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			slices.Sort(labels)
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.GetHistogram(); h != nil {
				value = h.GetSampleSum()
			}
			out = append(out, fmt.Sprintf("%s{%s} %v", name, strings.Join(labels, ","), value))
		}
	}
	return out
}

func labelsOf(t *testing.T, families map[string]*dto.MetricFamily, name string) map[string]string {
	t.Helper()
	metrics := families[name].GetMetric()
	if len(metrics) != 1 {
		t.Fatalf("%s has %d series, want 1", name, len(metrics))
	}
	out := map[string]string{}
	for _, l := range metrics[0].GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

func request() *proxy.Record {
	return &proxy.Record{
		Kind: proxy.KindRequest, Duration: 12500 * time.Microsecond, Status: 200, BytesReceived: 10, BytesSent: 300, GRPCStatus: -1,
		Conn:    &l7.Conn{Identity: "spiffe://cluster.local/ns/default/sa/productpage"},
		Source:  hbone.Workload{Cluster: "c1", Namespace: "lie", WorkloadType: "deployment", WorkloadName: "productpage-v1", Service: "productpage", Version: "v1"},
		Cluster: &l7.Cluster{Services: []l7.Service{{Host: "reviews.default.svc.cluster.local", Name: "reviews", Namespace: "default"}}}, ClusterName: "inbound-vip|9080|http/v2|reviews.default.svc.cluster.local",
		Endpoint:         &l7.Endpoint{Workload: "reviews-v2;default;reviews;v2;c1", Identity: "spiffe://cluster.local/ns/default/sa/reviews"},
		UpstreamIdentity: "spiffe://cluster.local/ns/default/sa/reviews",
	}
}

func newObserver(t *testing.T, self telemetry.Self, log telemetry.Writer) (*telemetry.Observer, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics, err := telemetry.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	return telemetry.NewObserver(metrics, self, log), registry
}

func TestWaypointLabels(t *testing.T) {
	o, registry := newObserver(t, telemetry.Self{}, nil)
	o.Ended(request())
	o.Ended(request())
	families := scrape(t, registry)
	want := map[string]string{
		"reporter": "waypoint", "source_workload": "productpage-v1", "source_canonical_service": "productpage", "source_canonical_revision": "v1",
		"source_workload_namespace": "default", "source_principal": "spiffe://cluster.local/ns/default/sa/productpage",
		"source_app": "productpage", "source_version": "v1", "source_cluster": "c1",
		"destination_workload": "reviews-v2", "destination_workload_namespace": "default", "destination_canonical_service": "reviews",
		"destination_canonical_revision": "v2", "destination_principal": "spiffe://cluster.local/ns/default/sa/reviews",
		"destination_app": "reviews", "destination_version": "v2", "destination_cluster": "c1",
		"destination_service": "reviews.default.svc.cluster.local", "destination_service_name": "reviews", "destination_service_namespace": "default",
		"request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-", "connection_security_policy": "mutual_tls",
	}
	for _, name := range []string{"istio_requests_total", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"} {
		if got := labelsOf(t, families, name); !maps.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", name, got, want)
		}
	}
	if v := families["istio_requests_total"].GetMetric()[0].GetCounter().GetValue(); v != 2 {
		t.Errorf("%v requests", v)
	}
	h := families["istio_request_duration_milliseconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleSum() != 25 || h.GetSampleCount() != 2 || h.GetBucket()[0].GetUpperBound() != .5 || h.GetBucket()[18].GetUpperBound() != 3600000 {
		t.Errorf("duration: %v", h)
	}
	if families["istio_request_messages_total"] != nil {
		t.Error("messages are counted of what is not gRPC")
	}
}

func TestLabelCases(t *testing.T) {
	for name, tt := range map[string]struct {
		self   telemetry.Self
		change func(*proxy.Record)
		want   map[string]string
	}{
		"a gateway": {
			telemetry.Self{Gateway: true, Workload: "gw", CanonicalService: "gw-istio", CanonicalRevision: "latest", Namespace: "edge", Principal: "spiffe://td/ns/edge/sa/gw", Cluster: "c1"},
			func(r *proxy.Record) { r.Conn = &l7.Conn{}; r.Source = hbone.Workload{} },
			map[string]string{
				"reporter": "source", "source_workload": "gw", "source_workload_namespace": "edge", "source_principal": "spiffe://td/ns/edge/sa/gw",
				"source_app": "unknown", "connection_security_policy": "unknown", "destination_workload": "reviews-v2",
			},
		},
		"a gateway in plain text": {
			telemetry.Self{Gateway: true, Principal: "spiffe://td/ns/edge/sa/gw"},
			func(r *proxy.Record) { r.UpstreamIdentity = ""; r.Endpoint = &l7.Endpoint{Workload: "x;y"} },
			map[string]string{"source_principal": "unknown", "destination_principal": "unknown", "destination_workload": "x", "destination_workload_namespace": "y", "destination_app": "unknown"},
		},
		"no baggage": {
			telemetry.Self{},
			func(r *proxy.Record) { r.Source = hbone.Workload{} },
			map[string]string{"source_workload": "unknown", "source_workload_namespace": "default", "source_principal": "spiffe://cluster.local/ns/default/sa/productpage"},
		},
		"denied, known by the chain": {
			telemetry.Self{},
			func(r *proxy.Record) {
				r.Cluster, r.ClusterName, r.Endpoint, r.UpstreamIdentity, r.Status = nil, "", nil, "", 403
				r.Chain = &l7.Chain{Name: "inbound-vip|9080||reviews.default.svc.cluster.local-http"}
			},
			map[string]string{"destination_service": "reviews.default.svc.cluster.local", "destination_service_name": "reviews", "destination_service_namespace": "default", "destination_workload": "unknown", "response_code": "403"},
		},
		"a cluster without metadata": {
			telemetry.Self{},
			func(r *proxy.Record) { r.Cluster = &l7.Cluster{}; r.ClusterName = "outbound|443||api.example.com" },
			map[string]string{"destination_service": "api.example.com", "destination_service_name": "api.example.com", "destination_service_namespace": "unknown"},
		},
		"flags": {
			telemetry.Self{},
			func(r *proxy.Record) {
				r.Flags = l7.FlagUpstreamConnectionFailure | l7.FlagUpstreamRetryLimit
				r.Status = 503
			},
			map[string]string{"response_flags": (l7.FlagUpstreamConnectionFailure | l7.FlagUpstreamRetryLimit).String(), "response_code": "503"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, registry := newObserver(t, tt.self, nil)
			r := request()
			tt.change(r)
			o.Ended(r)
			got := labelsOf(t, scrape(t, registry), "istio_requests_total")
			for label, want := range tt.want {
				if got[label] != want {
					t.Errorf("%s=%q, want %q", label, got[label], want)
				}
			}
		})
	}
}

func TestGRPC(t *testing.T) {
	o, registry := newObserver(t, telemetry.Self{}, nil)
	r := request()
	r.GRPC, r.GRPCStatus, r.RequestMessages, r.ResponseMessages = true, 14, 3, 5
	o.Ended(r)
	families := scrape(t, registry)
	if got := labelsOf(t, families, "istio_requests_total"); got["request_protocol"] != "grpc" || got["grpc_response_status"] != "14" {
		t.Errorf("%v", got)
	}
	if up, down := families["istio_request_messages_total"].GetMetric()[0].GetCounter().GetValue(), families["istio_response_messages_total"].GetMetric()[0].GetCounter().GetValue(); up != 3 || down != 5 {
		t.Errorf("%v and %v messages", up, down)
	}
}

// Bytes of a connection are counted while it is open, and once.
func TestConnections(t *testing.T) {
	o, registry := newObserver(t, telemetry.Self{}, nil)
	r := request()
	r.Kind, r.Status, r.ConnectionID, r.BytesReceived, r.BytesSent = proxy.KindConnection, 0, 7, 0, 0
	value := func(name string) (total float64) {
		for _, m := range scrape(t, registry)[name].GetMetric() {
			total += m.GetCounter().GetValue()
		}
		return total
	}
	o.Opened(r)
	if value("istio_tcp_connections_opened_total") != 1 || value("istio_tcp_connections_closed_total") != 0 {
		t.Error("not counted as open")
	}
	r.BytesReceived, r.BytesSent = 100, 1000
	o.Progress(r)
	o.Progress(r)
	if value("istio_tcp_received_bytes_total") != 100 || value("istio_tcp_sent_bytes_total") != 1000 {
		t.Error("the bytes so far are not counted once")
	}
	r.BytesReceived, r.BytesSent = 150, 1001
	r.Flags = l7.FlagDownstreamTermination
	o.Ended(r)
	if value("istio_tcp_received_bytes_total") != 150 || value("istio_tcp_sent_bytes_total") != 1001 || value("istio_tcp_connections_closed_total") != 1 || value("istio_tcp_connections_opened_total") != 1 {
		t.Error(series(scrape(t, registry), "istio_tcp"))
	}
	refused := request()
	refused.Kind, refused.ConnectionID, refused.Flags = proxy.KindConnection, 8, l7.FlagNoCluster
	o.Ended(refused)
	if value("istio_tcp_connections_opened_total") != 2 || value("istio_tcp_connections_closed_total") != 2 {
		t.Error("a connection that found no host is not counted")
	}
	got := scrape(t, registry)["istio_tcp_connections_opened_total"].GetMetric()[0]
	for _, l := range got.GetLabel() {
		if l.GetName() == "request_protocol" && l.GetValue() != "tcp" || l.GetName() == "response_code" {
			t.Errorf("%v", l)
		}
	}
	o.Ended(&proxy.Record{Kind: proxy.KindTunnel})
	if n := scrape(t, registry)["istio_requests_total"]; n != nil {
		t.Error("a refused tunnel counts as a request")
	}
}

// Labels that alias a reused buffer are copied before they are kept.
func TestKeptStringsAreCopies(t *testing.T) {
	o, registry := newObserver(t, telemetry.Self{}, nil)
	buffer := []byte("productpage-v1")
	r := request()
	for _, name := range []string{"productpage-v1", "reused-buffer!"} {
		copy(buffer, name)
		r.Source.WorkloadName = string(buffer)
		o.Ended(r)
	}
	if got := scrape(t, registry)["istio_requests_total"].GetMetric(); len(got) != 2 {
		t.Errorf("%d series, want 2", len(got))
	}
}

type writer struct{ records int }

func (w *writer) Write(*proxy.Record) { w.records++ }

func TestEveryEndIsLogged(t *testing.T) {
	w := &writer{}
	o, _ := newObserver(t, telemetry.Self{}, w)
	for _, kind := range []proxy.Kind{proxy.KindRequest, proxy.KindConnection, proxy.KindTunnel} {
		o.Ended(&proxy.Record{Kind: kind})
	}
	if w.records != 3 {
		t.Errorf("%d records", w.records)
	}
}

// engine is a server with fixed counters.
type engine struct{}

func (engine) Stats() proxy.Stats {
	return proxy.Stats{Connections: 3, Draining: true, NoChain: 9, HTTP: []proxy.HTTPStats{{Prefix: "outbound_0.0.0.0_8080", Rq2xx: 5}}}
}

func (engine) Listeners() []listener.State {
	return []listener.State{{Name: "0.0.0.0_8080", Address: netip.MustParseAddrPort("0.0.0.0:8080"), Connections: 4}}
}

func (engine) Clusters() []upstream.ClusterState {
	return []upstream.ClusterState{{Name: "outbound|9080||a.b.svc.cluster.local", Stats: upstream.ClusterStats{RqTotal: 5, Rq5xx: 1, MembershipTotal: 2}}}
}

func TestEngineCounters(t *testing.T) {
	read := func() []telemetry.Sample {
		return telemetry.Samples(engine{}, telemetry.Sample{Scope: "cluster_manager", Name: "cds.update_success", Value: 7, Counter: true})
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(telemetry.NewCollector(read))
	got := series(scrape(t, registry), "envoy_")
	for _, want := range []string{
		`envoy_cluster_upstream_rq_total{cluster_name="outbound|9080||a.b.svc.cluster.local"} 5`,
		`envoy_cluster_upstream_rq{cluster_name="outbound|9080||a.b.svc.cluster.local",response_code_class="5xx"} 1`,
		`envoy_cluster_membership_total{cluster_name="outbound|9080||a.b.svc.cluster.local"} 2`,
		`envoy_listener_downstream_cx_active{listener_address="0.0.0.0_8080"} 4`,
		`envoy_http_downstream_rq{http_conn_manager_prefix="outbound_0.0.0.0_8080",response_code_class="2xx"} 5`,
		`envoy_listener_no_filter_chain_match{} 9`,
		`envoy_cluster_manager_cds_update_success{} 7`,
		`envoy_server_draining{} 1`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	var text strings.Builder
	if err := telemetry.WriteText(&text, read(), func(name string) bool { return strings.Contains(name, "5xx") }); err != nil {
		t.Fatal(err)
	}
	if want := "cluster.outbound|9080||a.b.svc.cluster.local.upstream_rq_5xx: 1\nhttp.outbound_0.0.0.0_8080.downstream_rq_5xx: 0\n"; text.String() != want {
		t.Errorf("%q", text.String())
	}
}

func BenchmarkRequest(b *testing.B) {
	metrics, err := telemetry.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	o := telemetry.NewObserver(metrics, telemetry.Self{}, nil)
	r := request()
	b.ReportAllocs()
	for b.Loop() {
		o.Ended(r)
	}
}
