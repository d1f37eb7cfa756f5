package proxy

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// seriesKept is how long a combination of labels is shown after its last connection: long enough for every scraper to have seen the
	// last of it several times. One that comes back begins at 0, which Prometheus takes for a restart.
	seriesKept = 15 * time.Minute
	// seriesSwept is how often it is looked for those that are to be forgotten, at most.
	seriesSwept = time.Minute
)

// series are what is counted of the connections with one combination of labels. The labels are kept once for all of them: in a large
// mesh it is they that take the memory.
type series struct {
	opened, closed, failed, received, sent atomic.Uint64

	labels  []*dto.LabelPair // sorted by name; immutable
	carried atomic.Bool      // a connection was open: shows all but failed, which shows itself from the first one on

	connections int       // that are open now; guarded by seriesTable.mu
	used        time.Time // when the last one ended; guarded by seriesTable.mu
}

// seriesTable has the series by their labels, and forgets them when nothing has used them for a while: workloads come and go, and a
// process that knew the names of all that ever were would grow without end. It is a prometheus.Collector.
type seriesTable struct {
	names []string // of the labels, in the order of values
	descs seriesDescs

	mu    sync.Mutex // guards what follows
	by    map[string]*series
	key   []byte // to look up without allocating
	swept time.Time
}

type seriesDescs struct{ opened, closed, failed, received, sent *prometheus.Desc }

func newSeriesTable(names []string) *seriesTable {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, names, nil) }
	return &seriesTable{names: names, by: map[string]*series{}, swept: time.Now(), descs: seriesDescs{
		opened:   desc("istio_tcp_connections_opened_total", "Connections opened."),
		closed:   desc("istio_tcp_connections_closed_total", "Connections closed."),
		failed:   desc("istio_tcp_connections_failed_total", "Connections that were refused or could not be made."),
		received: desc("istio_tcp_received_bytes_total", "Bytes from clients to servers."),
		sent:     desc("istio_tcp_sent_bytes_total", "Bytes from servers to clients."),
	}}
}

// hold is the series of an open connection. It stays until release.
func (t *seriesTable) hold(values []string) *series {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(values)
	s.connections++
	s.carried.Store(true)
	return s
}

// release ends what hold began.
func (t *seriesTable) release(s *series) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.connections--
	s.used = time.Now()
}

// fail counts a connection that was never open.
func (t *seriesTable) fail(values []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(values)
	s.used = time.Now()
	s.failed.Add(1)
}

// find is called with mu held. The key is made of what is shown: two series that a scrape could not tell apart would fail it.
func (t *seriesTable) find(values []string) *series {
	t.key = t.key[:0]
	for _, v := range values {
		t.key = append(append(t.key, shown(v)...), 0)
	}
	if s := t.by[string(t.key)]; s != nil {
		return s
	}
	// Only what is new makes the table larger: here is where it has to be kept small.
	if now := time.Now(); now.Sub(t.swept) >= seriesSwept {
		t.swept = now
		for key, s := range t.by {
			if s.connections == 0 && now.Sub(s.used) >= seriesKept {
				delete(t.by, key)
			}
		}
	}
	s := &series{labels: labelPairs(t.names, values)}
	t.by[string(t.key)] = s
	return s
}

// shown is a label's value as scrapes show it: one byte that is not text would fail all of them. It allocates only for such.
func shown(value string) string { return strings.ToValidUTF8(value, "\uFFFD") }

// labelPairs are in the order of their names, as the exposition wants them.
func labelPairs(names, values []string) []*dto.LabelPair {
	pairs := make([]dto.LabelPair, len(names)) // all in one piece
	sorted := make([]*dto.LabelPair, len(names))
	texts := make([]string, len(values))
	for n := range names {
		texts[n] = shown(values[n])
		pairs[n].Name, pairs[n].Value = &names[n], &texts[n]
		sorted[n] = &pairs[n]
	}
	slices.SortFunc(sorted, func(a, b *dto.LabelPair) int { return strings.Compare(*a.Name, *b.Name) })
	return sorted
}

// Describe implements prometheus.Collector.
func (t *seriesTable) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{t.descs.opened, t.descs.closed, t.descs.failed, t.descs.received, t.descs.sent} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (t *seriesTable) Collect(out chan<- prometheus.Metric) {
	t.mu.Lock()
	all := slices.Collect(maps.Values(t.by))
	t.mu.Unlock()
	for _, s := range all {
		if s.carried.Load() {
			// What is closed was opened before: in this order a scrape never shows more of the former.
			out <- s.sample(t.descs.closed, &s.closed)
			out <- s.sample(t.descs.opened, &s.opened)
			out <- s.sample(t.descs.received, &s.received)
			out <- s.sample(t.descs.sent, &s.sent)
		}
		if s.failed.Load() > 0 {
			out <- s.sample(t.descs.failed, &s.failed)
		}
	}
}

// sample is one counter as it is at a scrape.
type sample struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

func (s *series) sample(desc *prometheus.Desc, counter *atomic.Uint64) *sample {
	return &sample{desc: desc, labels: s.labels, value: float64(counter.Load())}
}

// Desc implements prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s *sample) Write(out *dto.Metric) error {
	out.Label, out.Counter = s.labels, &dto.Counter{Value: &s.value}
	return nil
}
