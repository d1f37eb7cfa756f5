package registry

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Metrics count what comes in.
type Metrics struct {
	cfgEvents *prometheus.CounterVec
	regEvents *prometheus.CounterVec
	inbound   *prometheus.CounterVec
}

// NewMetrics registers the metrics of a registry.
func NewMetrics(registerer prometheus.Registerer, r *Registry) (*Metrics, error) {
	m := &Metrics{
		cfgEvents: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_k8s_cfg_events", Help: "Events from configuration objects."}, []string{"type", "event"}),
		regEvents: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_k8s_reg_events", Help: "Events from registry objects."}, []string{"type", "event"}),
		inbound:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_inbound_updates", Help: "Updates received, by what they are about."}, []string{"type"}),
	}
	services := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pilot_services", Help: "Services known."}, func() float64 { return float64(r.serviceList.Len()) })
	withoutIP := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pilot_no_ip", Help: "Pods that have not ended and have no address."}, func() float64 {
		n := 0
		for _, p := range r.pods.List() {
			if len(p.IPs) == 0 && !p.Ended() {
				n++
			}
		}
		return float64(n)
	})
	var err error
	for _, c := range []prometheus.Collector{m.cfgEvents, m.regEvents, m.inbound, services, withoutIP} {
		err = errors.Join(err, registerer.Register(c))
	}
	return m, err
}

// observe counts the changes of one kind. A nil Metrics counts nothing.
func (m *Metrics) observe(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName, known func(string) bool) {
	if m == nil {
		return
	}
	events, kind := m.regEvents, registryType(gvk.Kind)
	inbound := "svc"
	switch {
	case kind == "":
		events, kind, inbound = m.cfgEvents, gvk.Kind, "config"
	case gvk.Kind == "Pod" || gvk.Kind == "EndpointSlice":
		inbound = "eds"
	}
	m.inbound.WithLabelValues(inbound).Add(float64(len(upserts) + len(deletes)))
	for _, o := range upserts {
		event := "add"
		if known(objectKey(o)) {
			event = "update"
		}
		events.WithLabelValues(kind, event).Inc()
	}
	events.WithLabelValues(kind, "delete").Add(float64(len(deletes)))
}

// registryType is the label value of kinds that Kubernetes itself defines; empty for configuration.
func registryType(kind string) string {
	switch kind {
	case "Service":
		return "Services"
	case "Pod":
		return "Pods"
	case "Node":
		return "Nodes"
	case "Namespace":
		return "Namespaces"
	case "EndpointSlice":
		return "EndpointSlice"
	}
	return ""
}
