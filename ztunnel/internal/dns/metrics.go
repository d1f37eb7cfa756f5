package dns

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts queries by client.
type Metrics struct {
	requests, upstreamRequests, upstreamFailures *prometheus.CounterVec
	upstreamDuration                             *prometheus.HistogramVec
}

// NewMetrics registers the DNS metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	labels := []string{"request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		requests:         counter("istio_dns_requests_total", "DNS queries of the node's pods."),
		upstreamRequests: counter("istio_dns_upstream_requests_total", "DNS queries passed on to a resolver."),
		upstreamFailures: counter("istio_dns_upstream_failures_total", "DNS queries that no resolver answered."),
		upstreamDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "istio_dns_upstream_request_duration_seconds", Help: "Time until a resolver answered.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, labels),
	}
	for _, c := range []prometheus.Collector{m.requests, m.upstreamRequests, m.upstreamFailures, m.upstreamDuration} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register DNS metrics: %w", err)
		}
	}
	return m, nil
}
