package proxy

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// unknown is the value of a label nothing is known for.
const unknown = "unknown"

// Metrics are the traffic metrics of all pods.
type Metrics struct {
	traffic  *seriesTable
	sockets  *prometheus.GaugeVec
	onDemand *prometheus.CounterVec
	revoked  *prometheus.CounterVec
	peersCut *prometheus.CounterVec
	shadow   *prometheus.CounterVec
}

// sideLabels are the label names of one side of a connection.
func sideLabels(side string) []string {
	names := []string{"workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app", "version", "cluster"}
	labels := make([]string, len(names))
	for n, name := range names {
		labels[n] = side + "_" + name
	}
	return labels
}

func trafficLabels() []string {
	labels := append([]string{"reporter"}, sideLabels("source")...)
	labels = append(labels, "destination_service", "destination_service_namespace", "destination_service_name")
	labels = append(labels, sideLabels("destination")...)
	return append(labels, "request_protocol", "response_flags", "connection_security_policy",
		"source_region", "source_zone", "destination_region", "destination_zone")
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		traffic: newSeriesTable(trafficLabels()),
		sockets: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "istio_tcp_sockets_open", Help: "Connections open now.",
		}, []string{"reporter"}),
		onDemand: counter("istio_on_demand_dns_total", "Lookups of workloads known by host name.", append(sideLabels("source"), "hostname")),
	}
	m.shadow = counter("istio_authz_shadow_total", "Connections that policies of a dry run match, and what they would have done.", []string{"policy", "decision"})
	m.revoked = counter("istio_crl_policy_rejections_total", "Tunnels refused or closed because the peer's certificate is revoked.", []string{"reporter"})
	m.peersCut = counter("istio_ztunnel_peers_cut_total", "Tunnel connections refused or ended because the peer broke a rule or a bound.", []string{"direction", "reason"})
	for _, c := range []prometheus.Collector{m.peersCut, m.revoked, m.shadow, m.traffic, m.sockets, m.onDemand} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register traffic metrics: %w", err)
		}
	}
	return m, nil
}

// dryRun counts what a policy of a dry run would have done. There are as many of them as policies.
func (m *Metrics) dryRun(policy string, allowed bool) {
	decision := "deny"
	if allowed {
		decision = "allow"
	}
	m.shadow.WithLabelValues(policy, decision).Inc()
}

func (m *Metrics) onDemandDNS(source *l4.Workload, hostname string) {
	m.onDemand.WithLabelValues(append(sideValues(source, ""), hostname)...).Inc()
}

// sideValues are in the order of sideLabels.
func sideValues(w *l4.Workload, principal string) []string {
	if w == nil {
		return []string{unknown, unknown, unknown, unknown, known(principal), unknown, unknown, unknown}
	}
	return []string{
		known(w.WorkloadName), known(w.CanonicalName), known(w.CanonicalRevision), known(w.Namespace),
		known(principal), known(w.CanonicalName), known(w.CanonicalRevision), known(w.ClusterID),
	}
}

// reporter is the value of the label of that name.
func (t *traffic) reporter() string {
	if t.outbound {
		return "source"
	}
	return "destination"
}

// values are in the order of trafficLabels.
func (t *traffic) values(flag string) []string {
	security := unknown
	sourceID, destinationID := "", ""
	if t.secure {
		security, sourceID, destinationID = "mutual_tls", t.sourceID.String(), t.destinationID.String()
	}
	source := sideValues(t.source, sourceID)
	if t.source == nil && t.secure {
		source[3] = known(t.sourceID.Namespace) // proven by the certificate
	}
	values := append([]string{t.reporter()}, source...)
	if t.service != nil {
		values = append(values, t.service.Hostname, t.service.Namespace, t.service.Name)
	} else {
		values = append(values, unknown, unknown, unknown)
	}
	values = append(values, sideValues(t.destination, destinationID)...)
	values = append(values, "tcp", flag, security)
	values = append(values, localityValues(t.source)...)
	return append(values, localityValues(t.destination)...)
}

func localityValues(w *l4.Workload) []string {
	if w == nil {
		return []string{unknown, unknown}
	}
	return []string{known(w.Locality.Region), known(w.Locality.Zone)}
}

func known(s string) string {
	if s == "" {
		return unknown
	}
	return s
}
