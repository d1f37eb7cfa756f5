package nodeagent

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the agent.
type Metrics struct {
	events    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	cut       prometheus.Counter
	fallbacks *prometheus.CounterVec
	Connected prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nodeagent_reconcile_events_total", Help: "Pods that were enrolled (add) or taken out (remove), or tried to.",
		}, []string{"type"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_plugin_requests_total", Help: "Requests of the CNI plugin.",
		}, []string{"command", "result"}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "istio_cni_older_connections_cut_total", Help: "Connections older than their pod's enrolment that were cut because of STRICT.",
		}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_redirection_fallbacks_total", Help: "Pods that got the usual redirection although another one is chosen for pods that start.",
		}, []string{"reason"}),
		Connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ztunnel_connected", Help: "Node proxies connected."}),
	}
	for _, c := range []prometheus.Collector{m.events, m.requests, m.cut, m.fallbacks, m.Connected} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the agent's metrics: %w", err)
		}
	}
	return m, nil
}

// FellBack counts something that has the usual redirection although another one is chosen, with the reason.
func (m *Metrics) FellBack(reason string) { m.fallbacks.WithLabelValues(reason).Inc() }

// RegisterGauges registers what is counted when somebody asks.
func (a *Agent) RegisterGauges(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "istio_cni_unenrolled_pods", Help: "Pods of this node that belong into the mesh and are not in it (yet).",
		}, func() float64 { return float64(a.unenrolled()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "istio_cni_older_connections", Help: "Connections that are older than their pod's enrolment, and go past the mesh.",
		}, func() float64 { return float64(a.olderCount()) }),
	} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("register the agent's gauges: %w", err)
		}
	}
	return nil
}
