package proxy

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What nobody has used for a while is not shown any more, and does not take memory; an open connection keeps its series.
func TestSeriesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newSeriesTable([]string{"reporter", "source_workload"})
		gone, open := table.hold([]string{"source", "gone"}), table.hold([]string{"source", "open"})
		gone.opened.Add(1)
		gone.closed.Add(1)
		open.opened.Add(1)
		table.release(gone)
		table.fail([]string{"source", "refused"})
		shows := func(want string) {
			t.Helper()
			if err := testutil.CollectAndCompare(table, strings.NewReader(want), "istio_tcp_connections_opened_total", "istio_tcp_connections_failed_total"); err != nil {
				t.Error(err)
			}
		}
		const opened = "# HELP istio_tcp_connections_opened_total Connections opened.\n# TYPE istio_tcp_connections_opened_total counter\n"
		const failed = "# HELP istio_tcp_connections_failed_total Connections that were refused or could not be made.\n# TYPE istio_tcp_connections_failed_total counter\n"
		time.Sleep(seriesKept - time.Second)
		table.fail([]string{"source", "early"})
		shows(failed + `istio_tcp_connections_failed_total{reporter="source",source_workload="early"} 1
istio_tcp_connections_failed_total{reporter="source",source_workload="refused"} 1
` + opened + `istio_tcp_connections_opened_total{reporter="source",source_workload="gone"} 1
istio_tcp_connections_opened_total{reporter="source",source_workload="open"} 1
`)
		time.Sleep(seriesSwept)
		table.fail([]string{"source", "late"})
		shows(failed + `istio_tcp_connections_failed_total{reporter="source",source_workload="early"} 1
istio_tcp_connections_failed_total{reporter="source",source_workload="late"} 1
` + opened + `istio_tcp_connections_opened_total{reporter="source",source_workload="open"} 1
`)
		again := table.hold([]string{"source", "gone"})
		if again.opened.Load() != 0 {
			t.Error("a series that was forgotten came back with its count")
		}
		if same := table.hold([]string{"source", "open"}); same != open {
			t.Error("an open connection's series was forgotten")
		}
	})
}

// Workloads that come and go, a name of its own each, take what those of the last minutes take.
func TestSeriesOfWorkloadsThatComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newSeriesTable(trafficLabels())
		values := (&traffic{}).values(flagNone)
		const each = 10 * time.Second
		for n := range 5000 {
			values[1] = fmt.Sprint("job-", n)
			table.release(table.hold(values))
			time.Sleep(each)
		}
		if got, most := len(table.by), int((seriesKept+seriesSwept)/each)+1; got > most {
			t.Errorf("%d combinations kept, want at most %d", got, most)
		}
	})
}

// A label that no scrape could show must not take all others with it.
func TestSeriesWithBytesThatAreNotText(t *testing.T) {
	metrics := prometheus.NewRegistry()
	table := newSeriesTable([]string{"reporter", "source_workload"})
	if err := metrics.Register(table); err != nil {
		t.Fatal(err)
	}
	table.fail([]string{"source", "a\xffb"})
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if got := families[0].GetMetric()[0].GetLabel()[1].GetValue(); got != "a\uFFFDb" {
		t.Errorf("label %q", got)
	}
}

// Values that look the same when they are shown are one series: with two, every scrape would fail.
func TestSeriesThatDifferInBytesThatAreNotText(t *testing.T) {
	metrics := prometheus.NewRegistry()
	table := newSeriesTable([]string{"reporter", "source_workload"})
	if err := metrics.Register(table); err != nil {
		t.Fatal(err)
	}
	held := table.hold([]string{"source", "a\xffb"})
	for _, same := range []string{"a\xfeb", "a\xff\xfeb", "a\uFFFDb"} {
		if table.hold([]string{"source", same}) != held {
			t.Errorf("%q has a series of its own", same)
		}
	}
	for _, other := range []string{"ab", "a?b", "a\uFFFD\uFFFDb"} {
		if table.hold([]string{"source", other}) == held {
			t.Errorf("%q has the series of another", other)
		}
	}
	held.opened.Add(4)
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(families[0].GetMetric()); got != 4 {
		t.Errorf("%d series are shown, want 4", got)
	}
}

func BenchmarkSeries(b *testing.B) {
	table := newSeriesTable(trafficLabels())
	values := (&traffic{}).values(flagNone)
	b.ReportAllocs()
	for b.Loop() {
		table.release(table.hold(values))
	}
}
