package experimental

import (
	"math"
	"testing"
	"time"
)

// TestCounts: what a proxy shows of a workload is what is counted.
func TestCounts(t *testing.T) {
	t.Parallel()
	counted := []counts{{buckets: map[float64]float64{}}}
	metrics := `# TYPE istio_requests_total counter
istio_requests_total{reporter="waypoint",destination_workload="w",destination_workload_namespace="n",response_code="200"} 8
istio_requests_total{reporter="source",destination_workload="w",destination_workload_namespace="n",response_code="200"} 1000
istio_requests_total{reporter="waypoint",destination_workload="w",destination_workload_namespace="n",response_code="503"} 2
istio_requests_total{reporter="waypoint",destination_workload="other",destination_workload_namespace="n",response_code="200"} 9
# TYPE istio_tcp_connections_opened_total counter
istio_tcp_connections_opened_total{reporter="destination",destination_workload="w",destination_workload_namespace="n"} 4
# TYPE istio_request_duration_milliseconds histogram
istio_request_duration_milliseconds_bucket{reporter="waypoint",destination_workload="w",destination_workload_namespace="n",le="10"} 5
istio_request_duration_milliseconds_bucket{reporter="waypoint",destination_workload="w",destination_workload_namespace="n",le="20"} 9
istio_request_duration_milliseconds_bucket{reporter="waypoint",destination_workload="w",destination_workload_namespace="n",le="+Inf"} 10
istio_request_duration_milliseconds_sum{reporter="waypoint",destination_workload="w",destination_workload_namespace="n"} 100
istio_request_duration_milliseconds_count{reporter="waypoint",destination_workload="w",destination_workload_namespace="n"} 10
`
	if err := add(counted, []asked{{"w", "n"}}, []byte(metrics)); err != nil {
		t.Fatal(err)
	}
	got := difference(asked{"w", "n"}, counts{}, counted[0], 2)
	want := measured{
		Workload: "w.n", Total: 5, Errors: 1, Connected: 2, P50: 10 * time.Millisecond, P90: 20 * time.Millisecond, P99: 20 * time.Millisecond,
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, c := range []struct {
		q       float64
		buckets map[float64]float64
		want    time.Duration
	}{
		{0.5, nil, 0},
		{0.5, map[float64]float64{10: 0, inf: 0}, 0},
		{0.5, map[float64]float64{10: 10, inf: 10}, 5 * time.Millisecond},
		{0.75, map[float64]float64{10: 5, 20: 10, inf: 10}, 15 * time.Millisecond},
		{0.99, map[float64]float64{10: 1, inf: 100}, 10 * time.Millisecond},
	} {
		if got := quantile(c.q, c.buckets); got != c.want {
			t.Errorf("%g of %v is %s, want %s", c.q, c.buckets, got, c.want)
		}
	}
}
