package telemetry

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/listener"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
)

// Engine is what the engine's own counters are read from.
type Engine interface {
	Stats() proxy.Stats
	Listeners() []listener.State
	Clusters() []upstream.ClusterState
}

// Sample is one counter or gauge of the engine, under Envoy's name.
type Sample struct {
	// Scope, Owner and Name make "cluster.OWNER.upstream_rq_total"; Owner is "" for what belongs to the whole server.
	Scope, Owner, Name string
	Value              float64
	Counter            bool
	// Class is of counters of responses: "2xx" of upstream_rq_2xx.
	Class string
}

// LocalRateLimit is the scope of rate limits, which Envoy puts behind their owner.
const LocalRateLimit = "http_local_rate_limit"

// String is Envoy's name.
func (s Sample) String() string {
	name := s.Name
	if s.Class != "" {
		name += "_" + s.Class
	}
	switch {
	case s.Owner == "":
		return s.Scope + "." + name
	case s.Scope == LocalRateLimit:
		return s.Owner + "." + s.Scope + "." + name
	}
	return s.Scope + "." + s.Owner + "." + name
}

// Samples reads all counters. extra are those of others, appended.
func Samples(e Engine, extra ...Sample) []Sample {
	var out []Sample
	for _, c := range e.Clusters() {
		out = append(out, clusterSamples(c)...)
	}
	stats := e.Stats()
	for _, h := range stats.HTTP {
		out = append(out, httpSamples(h)...)
	}
	for _, l := range e.Listeners() {
		out = append(out, Sample{Scope: "listener", Owner: strings.ReplaceAll(l.Address.String(), ":", "_"), Name: "downstream_cx_active", Value: float64(l.Connections)})
	}
	gauge := func(scope, name string, v float64) {
		out = append(out, Sample{Scope: scope, Name: name, Value: v})
	}
	gauge("server", "total_connections", float64(stats.Connections))
	gauge("server", "tunnels_active", float64(stats.Tunnels))
	draining := 0.0
	if stats.Draining {
		draining = 1
	}
	gauge("server", "draining", draining)
	counter := func(scope, name string, v uint64) {
		out = append(out, Sample{Scope: scope, Name: name, Value: float64(v), Counter: true})
	}
	counter("listener", "ssl_connection_error", stats.HandshakeErrors)
	counter("listener", "ssl_certificate_revoked", stats.Revoked)
	counter("listener", "no_filter_chain_match", stats.NoChain)
	counter("server", "tunnels_refused", stats.TunnelsRefused)
	counter("server", "mirrors_sent", stats.MirrorsSent)
	counter("server", "mirrors_dropped", stats.MirrorsDropped)
	return append(out, extra...)
}

func clusterSamples(c upstream.ClusterState) []Sample {
	s := c.Stats
	var out []Sample
	counter := func(name string, v uint64) {
		out = append(out, Sample{Scope: "cluster", Owner: c.Name, Name: name, Value: float64(v), Counter: true})
	}
	gauge := func(name string, v float64) {
		out = append(out, Sample{Scope: "cluster", Owner: c.Name, Name: name, Value: v})
	}
	class := func(class string, v uint64) {
		out = append(out, Sample{Scope: "cluster", Owner: c.Name, Name: "upstream_rq", Class: class, Value: float64(v), Counter: true})
	}
	counter("upstream_cx_total", s.CxTotal)
	gauge("upstream_cx_active", float64(s.CxActive))
	counter("upstream_cx_connect_fail", s.CxConnectFail)
	counter("upstream_cx_connect_timeout", s.CxConnectTimeout)
	counter("upstream_cx_overflow", s.CxOverflow)
	counter("upstream_cx_rx_bytes_total", s.CxRxBytes)
	counter("upstream_cx_tx_bytes_total", s.CxTxBytes)
	counter("upstream_rq_total", s.RqTotal)
	gauge("upstream_rq_active", float64(s.RqActive))
	counter("upstream_rq_completed", s.RqCompleted)
	counter("upstream_rq_pending_total", s.RqPendingTotal)
	gauge("upstream_rq_pending_active", float64(s.RqPending))
	counter("upstream_rq_pending_overflow", s.RqPendingOverflow+s.RqOverflow)
	counter("upstream_rq_timeout", s.RqTimeout)
	counter("upstream_rq_per_try_timeout", s.RqPerTryTimeout)
	counter("upstream_rq_retry", s.RqRetry)
	counter("upstream_rq_retry_success", s.RqRetrySuccess)
	counter("upstream_rq_retry_overflow", s.RqRetryOverflow)
	counter("upstream_rq_retry_limit_exceeded", s.RqRetryLimitExceeded)
	counter("upstream_rq_cancelled", s.RqCancelled)
	counter("upstream_rq_rx_reset", s.RqRxReset)
	counter("upstream_rq_tx_reset", s.RqTxReset)
	counter("upstream_cx_none_healthy", s.RqNoneHealthy)
	counter("upstream_identity_refused", s.IdentityRefused)
	counter("upstream_certificate_revoked", s.Revoked)
	class("1xx", s.Rq1xx)
	class("2xx", s.Rq2xx)
	class("3xx", s.Rq3xx)
	class("4xx", s.Rq4xx)
	class("5xx", s.Rq5xx)
	gauge("membership_total", float64(s.MembershipTotal))
	gauge("membership_healthy", float64(s.MembershipHealthy))
	gauge("membership_degraded", float64(s.MembershipDegraded))
	return out
}

func httpSamples(h proxy.HTTPStats) []Sample {
	var out []Sample
	add := func(name, class string, v uint64, counter bool) {
		out = append(out, Sample{Scope: "http", Owner: h.Prefix, Name: name, Class: class, Value: float64(v), Counter: counter})
	}
	add("downstream_cx_total", "", h.CxTotal, true)
	add("downstream_cx_active", "", h.CxActive, false)
	add("downstream_rq_total", "", h.RqTotal, true)
	add("downstream_rq_active", "", h.RqActive, false)
	add("downstream_rq_rx_reset", "", h.RqRxReset, true)
	add("downstream_rq_tx_reset", "", h.RqTxReset, true)
	add("downstream_rq_timeout", "", h.RqTimeout, true)
	add("downstream_rq_idle_timeout", "", h.IdleTimeout, true)
	for i, v := range []uint64{h.Rq1xx, h.Rq2xx, h.Rq3xx, h.Rq4xx, h.Rq5xx} {
		add("downstream_rq", string(rune('1'+i))+"xx", v, true)
	}
	return out
}

// WriteText writes samples as Envoy's /stats does, sorted, those that keep accepts.
func WriteText(w io.Writer, samples []Sample, keep func(name string) bool) error {
	lines := make([]string, 0, len(samples))
	for _, s := range samples {
		if name := s.String(); keep == nil || keep(name) {
			lines = append(lines, fmt.Sprintf("%s: %.0f\n", name, s.Value))
		}
	}
	slices.Sort(lines)
	_, err := io.WriteString(w, strings.Join(lines, ""))
	return err
}

// Collector shows samples to Prometheus, under Envoy's names: envoy_cluster_upstream_rq_total{cluster_name="…"}.
type Collector struct{ read func() []Sample }

// NewCollector asks read at each scrape.
func NewCollector(read func() []Sample) *Collector { return &Collector{read: read} }

// Describe implements prometheus.Collector: what there is depends on the configuration.
func (*Collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	// Listeners may share a stat prefix, as with Envoy; their counters add up.
	totals := map[string]*Sample{}
	var order []*Sample
	for _, s := range c.read() {
		id := s.String()
		if t := totals[id]; t != nil {
			t.Value += s.Value
			continue
		}
		totals[id] = &s
		order = append(order, &s)
	}
	for _, s := range order {
		labels, values := sampleLabels(*s)
		kind := prometheus.GaugeValue
		if s.Counter {
			kind = prometheus.CounterValue
		}
		description := prometheus.NewDesc("envoy_"+sanitize(s.Scope+"_"+s.Name), "Envoy's "+s.Scope+"."+s.Name+".", labels, nil)
		metric, err := prometheus.NewConstMetric(description, kind, s.Value, values...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		}
		out <- metric
	}
}

// sampleLabels are those that Envoy makes of a name's parts.
func sampleLabels(s Sample) (labels, values []string) {
	owners := map[string]string{"cluster": "cluster_name", "listener": "listener_address", "http": "http_conn_manager_prefix", LocalRateLimit: "envoy_local_http_ratelimit_prefix"}
	if label := owners[s.Scope]; label != "" && s.Owner != "" {
		labels, values = append(labels, label), append(values, s.Owner)
	}
	if s.Class != "" {
		labels, values = append(labels, "response_code_class"), append(values, s.Class)
	}
	return labels, values
}

func sanitize(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, name)
}
