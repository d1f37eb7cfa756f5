package proxy

import (
	"bytes"
	"log/slog"
	"net/netip"
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

func TestRecordCountsAndLogsOneConnection(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log, _ := telemetry.NewLogger(&out, telemetry.Options{Level: slog.LevelInfo, Scope: "access"})
	i := &Instance{deps: Deps{Metrics: metrics, AccessLog: log}}
	web := &l4.Workload{Name: "web-1", WorkloadName: "web", Namespace: "shop", ClusterID: "c1", CanonicalName: "web"}
	cart := &l4.Workload{Name: "cart-1", WorkloadName: "cart", Namespace: "shop", ClusterID: "c1"}
	r := i.begin(traffic{
		outbound: true, src: netip.MustParseAddrPort("10.0.0.1:4711"), dst: netip.MustParseAddrPort("10.0.0.2:15008"),
		hboneDst: "10.0.0.2:80", source: web, destination: cart, secure: true,
		service:  &l4.Service{Name: "cart", ServiceKey: l4.ServiceKey{Namespace: "shop", Hostname: "cart.shop.svc"}},
		sourceID: spiffe.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "web"}, destinationID: spiffe.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "cart"},
	})
	r.opened()
	r.bytes.Sent.Store(5)
	r.bytes.Received.Store(7)
	r.report()
	r.report()
	r.end(nil)
	want := regexp.MustCompile(`^\S+Z\tinfo\taccess\tconnection complete\tsrc\.addr=10\.0\.0\.1:4711 src\.workload="web-1" src\.namespace="shop" ` +
		`src\.identity="spiffe://td/ns/shop/sa/web" src\.cluster="c1" dst\.addr=10\.0\.0\.2:15008 dst\.hbone_addr=10\.0\.0\.2:80 ` +
		`dst\.service="cart\.shop\.svc" dst\.workload="cart-1" dst\.namespace="shop" dst\.identity="spiffe://td/ns/shop/sa/cart" dst\.cluster="c1" ` +
		`direction="outbound" bytes_sent=7 bytes_recv=5 duration="\d+ms"\n$`)
	if !want.Match(out.Bytes()) {
		t.Errorf("line %q", out.String())
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"istio_tcp_connections_opened_total": 1, "istio_tcp_connections_closed_total": 1,
		"istio_tcp_received_bytes_total": 5, "istio_tcp_sent_bytes_total": 7, "istio_tcp_sockets_open": 0, "istio_tcp_connections_failed_total": 0,
	} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}
