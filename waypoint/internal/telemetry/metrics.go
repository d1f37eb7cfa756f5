package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of requests and connections, with the names of the field.
type Metrics struct {
	requests, requestMessages, responseMessages *prometheus.CounterVec
	duration, requestBytes, responseBytes       *prometheus.HistogramVec
	opened, closed, sent, received              *prometheus.CounterVec
	overflow                                    prometheus.Counter
	shadow                                      *prometheus.CounterVec

	// counters, histograms and help are by name, shapes what rules make of them.
	counters   map[string]*prometheus.CounterVec
	histograms map[string]*prometheus.HistogramVec
	help       map[string]string
	shapes     shapes
}

// labelNames are those of all metrics of requests, in the order of labels.values.
func labelNames() []string {
	return []string{
		"reporter",
		"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
		"source_principal", "source_app", "source_version", "source_cluster",
		"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
		"destination_principal", "destination_app", "destination_version", "destination_cluster",
		"destination_service", "destination_service_name", "destination_service_namespace",
		"request_protocol", "response_flags", "connection_security_policy",
	}
}

// httpNames are of requests only; they follow labelNames.
func httpNames() []string { return []string{"response_code", "grpc_response_status"} }

// buckets are Envoy's, in milliseconds; sizes use them too.
func buckets() []float64 {
	return []float64{
		.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
	}
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	tcp := labelNames()
	http := append(labelNames(), httpNames()...)
	counters, histograms, helps := map[string]*prometheus.CounterVec{}, map[string]*prometheus.HistogramVec{}, map[string]string{}
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		helps[name], counters[name] = help, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		return counters[name]
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		helps[name], histograms[name] = help, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets()}, http)
		return histograms[name]
	}
	m := &Metrics{
		requests:         counter("istio_requests_total", "Requests.", http),
		requestMessages:  counter("istio_request_messages_total", "Messages of gRPC clients.", http),
		responseMessages: counter("istio_response_messages_total", "Messages of gRPC servers.", http),
		duration:         histogram("istio_request_duration_milliseconds", "From the first byte of a request to the last of its response."),
		requestBytes:     histogram("istio_request_bytes", "Bytes of the bodies of requests."),
		responseBytes:    histogram("istio_response_bytes", "Bytes of the bodies of responses."),
		opened:           counter("istio_tcp_connections_opened_total", "Connections opened.", tcp),
		closed:           counter("istio_tcp_connections_closed_total", "Connections closed.", tcp),
		sent:             counter("istio_tcp_sent_bytes_total", "Bytes from servers to clients.", tcp),
		received:         counter("istio_tcp_received_bytes_total", "Bytes from clients to servers.", tcp),
		shadow: counter("istio_authz_shadow_total", "Requests and connections that policies of a dry run were asked about, by the policy that matched (none if none did) and what it would have done.",
			[]string{"policy", "decision"}),
		overflow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_metric_labels_overflow_total",
			Help: "Requests and connections counted without workload labels, because there were too many combinations.",
		}),
	}
	m.counters, m.histograms, m.help = counters, histograms, helps
	m.shapes.vecs = map[string]prometheus.Collector{}
	for _, c := range []prometheus.Collector{
		&m.shapes, m.requests, m.requestMessages, m.responseMessages, m.duration, m.requestBytes, m.responseBytes,
		m.opened, m.closed, m.sent, m.received, m.overflow, m.shadow,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of requests: %w", err)
		}
	}
	return m, nil
}

// requestHandles are the metrics of one combination of labels.
type requestHandles struct {
	requests, requestMessages, responseMessages counter
	duration, requestBytes, responseBytes       prometheus.Observer
}

func (m *Metrics) request(values []string) *requestHandles {
	return &requestHandles{
		requests: m.requests.WithLabelValues(values...),
		duration: m.duration.WithLabelValues(values...), requestBytes: m.requestBytes.WithLabelValues(values...),
		responseBytes: m.responseBytes.WithLabelValues(values...),
	}
}

// messages are made for gRPC only, so that no others show them.
func (m *Metrics) messages(h *requestHandles, values []string) {
	h.requestMessages, h.responseMessages = m.requestMessages.WithLabelValues(values...), m.responseMessages.WithLabelValues(values...)
}

// connectionHandles are the metrics of one combination of labels.
type connectionHandles struct{ opened, closed, sent, received counter }

func (m *Metrics) connection(values []string) *connectionHandles {
	return &connectionHandles{
		opened: m.opened.WithLabelValues(values...), closed: m.closed.WithLabelValues(values...),
		sent: m.sent.WithLabelValues(values...), received: m.received.WithLabelValues(values...),
	}
}
