package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the xDS server, named as Istio's.
type Metrics struct {
	connected   prometheus.Gauge
	pushes      *prometheus.CounterVec
	pushTime    *prometheus.HistogramVec
	convergence prometheus.Histogram
	queueTime   prometheus.Histogram
	rejects     *prometheus.CounterVec
	rejectsOf   map[string]*prometheus.CounterVec // by short type
}

// NewMetrics registers the metrics; with nil they count for nobody.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	latency := []float64{.0005, .001, .005, .01, .05, .1, .5, 1, 3, 5, 10, 20, 30}
	m := &Metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pilot_xds",
			Help: "Number of endpoints connected to this pilot using XDS.",
		}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_xds_pushes",
			Help: "Pilot build and send errors and pushes, by type.",
		}, []string{"type"}),
		pushTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pilot_xds_push_time", Buckets: latency,
			Help: "Total time in seconds Pilot takes to generate and write a response.",
		}, []string{"type"}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_convergence_time", Buckets: latency,
			Help: "Delay in seconds between a config change and a proxy having been sent it.",
		}),
		queueTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_queue_time", Buckets: latency,
			Help: "Time in seconds a change waits for a proxy before it is being written.",
		}),
		rejects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_total_xds_rejects",
			Help: "Total number of XDS responses from pilot rejected by proxy.",
		}, []string{"type"}),
		rejectsOf: map[string]*prometheus.CounterVec{},
	}
	all := []prometheus.Collector{m.connected, m.pushes, m.pushTime, m.convergence, m.queueTime, m.rejects}
	for _, t := range []string{"cds", "eds", "lds", "rds"} {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_xds_" + t + "_reject",
			Help: "Pilot rejected " + t + " configs.",
		}, []string{"node"})
		m.rejectsOf[t] = c
		all = append(all, c)
	}
	if reg != nil {
		reg.MustRegister(all...)
	}
	return m
}

func (m *Metrics) rejected(typeURL, node string) {
	short := shortType(typeURL)
	m.rejects.WithLabelValues(short).Inc()
	if c := m.rejectsOf[short]; c != nil {
		c.WithLabelValues(node).Inc()
	}
}

// pushes are the metrics of what is sent of one type.
type pushes struct {
	count prometheus.Counter
	time  prometheus.Observer
}

func (m *Metrics) pushesOf(typeURL string) pushes {
	short := shortType(typeURL)
	return pushes{count: m.pushes.WithLabelValues(short), time: m.pushTime.WithLabelValues(short)}
}

func (p pushes) pushed(took time.Duration) {
	p.count.Inc()
	p.time.Observe(took.Seconds())
}
