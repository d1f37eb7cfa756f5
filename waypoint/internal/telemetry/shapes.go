package telemetry

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// shapes are the variants of metrics that rules have given other labels. Prometheus takes series of one name with different labels;
// a collector that describes nothing may make them.
type shapes struct {
	mu   sync.Mutex // guards vecs
	vecs map[string]prometheus.Collector
}

// Describe implements prometheus.Collector.
func (*shapes) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *shapes) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.vecs))
	s.mu.Unlock()
	for _, v := range all {
		v.Collect(out)
	}
}

// vec finds the variant with the labels, or makes it.
func (s *shapes) vec(name string, labels []string, build func() prometheus.Collector) prometheus.Collector {
	key := name + "\x00" + strings.Join(labels, "\x00")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vecs[key] == nil {
		s.vecs[key] = build()
	}
	return s.vecs[key]
}

// counter is one of Prometheus, or nothing.
type counter interface {
	Inc()
	Add(float64)
}

// none counts nothing.
type none struct{}

func (none) Inc()            {}
func (none) Add(float64)     {}
func (none) Observe(float64) {}

// shape applies a rule to labels and values; own is false when the labels are still the usual ones.
func (r *rule) shape(names, base, values []string) (labels, with []string, own bool) {
	for i, name := range names {
		if r.remove[name] {
			own = true
			continue
		}
		value := base[i]
		if at, ok := r.set[name]; ok {
			value = values[at]
		}
		labels, with = append(labels, name), append(with, value)
	}
	for _, name := range slices.Sorted(maps.Keys(r.set)) {
		if !slices.Contains(names, name) && !r.remove[name] {
			labels, with, own = append(labels, name), append(with, values[r.set[name]]), true
		}
	}
	return labels, with, own
}

func (m *Metrics) ruledCounter(name string, names, base []string, said *rules, values []string) counter {
	usual := m.counters[name]
	r := said.byMetric[name]
	switch {
	case r == nil:
		return usual.WithLabelValues(base...)
	case r.disabled:
		return none{}
	}
	labels, with, own := r.shape(names, base, values)
	if own {
		usual = m.shapes.vec(name, labels, func() prometheus.Collector {
			return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: m.help[name]}, labels)
		}).(*prometheus.CounterVec)
	}
	return usual.WithLabelValues(with...)
}

func (m *Metrics) ruledHistogram(name string, names, base []string, said *rules, values []string) prometheus.Observer {
	usual := m.histograms[name]
	r := said.byMetric[name]
	switch {
	case r == nil:
		return usual.WithLabelValues(base...)
	case r.disabled:
		return none{}
	}
	labels, with, own := r.shape(names, base, values)
	if own {
		usual = m.shapes.vec(name, labels, func() prometheus.Collector {
			return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: m.help[name], Buckets: buckets()}, labels)
		}).(*prometheus.HistogramVec)
	}
	return usual.WithLabelValues(with...)
}
