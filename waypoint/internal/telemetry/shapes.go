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

// vec is a metric of Prometheus by labels.
type vec[T any] interface {
	prometheus.Collector
	WithLabelValues(values ...string) T
}

// combination is what rules are applied to: the names of labels and their usual values, and the values of the rules' expressions.
type combination struct {
	names, base []string
	said        *rules
	values      []string
}

// ruled finds the metric of a combination, among the usual ones or in the shape that a rule gives it, which build makes; ok is false when
// a rule wants none.
func ruled[T any, V vec[T]](m *Metrics, name string, c combination, usual V, build func(labels []string) V) (found T, ok bool) {
	r := c.said.byMetric[name]
	switch {
	case r == nil:
		return usual.WithLabelValues(c.base...), true
	case r.disabled:
		return found, false
	}
	labels, with, own := r.shape(c.names, c.base, c.values)
	if own {
		usual = m.shapes.vec(name, labels, func() prometheus.Collector { return build(labels) }).(V)
	}
	return usual.WithLabelValues(with...), true
}

func (m *Metrics) ruledCounter(name string, c combination) counter {
	found, ok := ruled(m, name, c, m.counters[name], func(labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: m.help[name]}, labels)
	})
	if !ok {
		return none{}
	}
	return found
}

func (m *Metrics) ruledHistogram(name string, c combination) prometheus.Observer {
	found, ok := ruled(m, name, c, m.histograms[name], func(labels []string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: m.help[name], Buckets: buckets()}, labels)
	})
	if !ok {
		return none{}
	}
	return found
}
