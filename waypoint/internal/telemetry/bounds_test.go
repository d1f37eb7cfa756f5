package telemetry

import (
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// What an application writes into grpc-status must not make time series without end.
func TestGRPCStatusIsBounded(t *testing.T) {
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	o := NewObserver(m, Self{}, nil)
	const n = 2000
	for i := range n {
		o.Ended(&proxy.Record{Kind: proxy.KindRequest, GRPC: true, Status: 200, GRPCStatus: i, Conn: &l7.Conn{}})
	}
	sets := 0
	o.requests.Range(func(_, _ any) bool { sets++; return true })
	if sets > maxGRPCStatus+2 {
		t.Errorf("%d values of grpc-status made %d combinations of labels", n, sets)
	}
}

// Beyond the limit, what clients say of themselves is left out, and nothing more is kept for it.
func TestLabelSetsAreBounded(t *testing.T) {
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	o := NewObserver(m, Self{}, nil)
	o.sets.Store(maxLabelSets - 10)
	for i := range 1000 {
		source := hbone.Workload{WorkloadName: strconv.Itoa(i)}
		o.Ended(&proxy.Record{Kind: proxy.KindRequest, Status: 200, Source: source, Conn: &l7.Conn{}})
		o.Ended(&proxy.Record{Kind: proxy.KindConnection, Source: source, Conn: &l7.Conn{}})
	}
	sets := 0
	count := func(_, _ any) bool { sets++; return true }
	o.requests.Range(count)
	o.tcp.Range(count)
	if sets > 12 {
		t.Errorf("%d combinations of labels", sets)
	}
}
