package client

import "github.com/prometheus/client_golang/prometheus"

// Metrics of an xDS client, named as ztunnel's.
type Metrics struct {
	terminations *prometheus.CounterVec
	messages     *prometheus.CounterVec
	bytes        *prometheus.CounterVec
}

// NewMetrics registers the metrics; with nil they count for nobody.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		terminations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_connection_terminations_total",
			Help: "The total number of completed connections to xds server.",
		}, []string{"reason"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_message_total",
			Help: "Total number of messages received.",
		}, []string{"url"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_message_bytes_total",
			Help: "Total number of bytes received.",
		}, []string{"url"}),
	}
	if reg != nil {
		reg.MustRegister(m.terminations, m.messages, m.bytes)
	}
	return m
}
