package budget

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
)

// flood takes all that an account gets.
func flood(a *Account) (n int64) {
	for a.Admit() {
		n++
	}
	return n
}

func TestFloodsLeaveRoom(t *testing.T) {
	for _, floods := range []int{1, 2, 4} {
		n := NewNode(Limits{Connections: 1200})
		var names []*Account
		for i := range floods {
			names = append(names, n.Open(Name{"shop", string(rune('a' + i))}))
		}
		for progress := true; progress; { // side by side
			progress = false
			for _, a := range names {
				progress = a.Admit() || progress
			}
		}
		share := int64(1200 / (floods + 1))
		for _, a := range names {
			if got := a.connections.Load(); got < share-1 || got > share+1 {
				t.Errorf("%d floods: one has %d connections, want about %d", floods, got, share)
			}
		}
		if got := flood(n.Open(Name{"shop", "z"})); got < share/2-1 {
			t.Errorf("%d floods: the next workload gets %d connections of %d that are free", floods, got, share)
		}
	}
}

func TestConnectionsAreGivenBack(t *testing.T) {
	n := NewNode(Limits{Connections: 100, PerWorkload: 10})
	a := n.Open(Name{"shop", "a"})
	for range 3 {
		if got := flood(a); got != 10 {
			t.Errorf("%d connections, want 10", got)
		}
		for range 10 {
			a.Leave()
		}
	}
	a.Enter() // from elsewhere: that is not asked
	again := n.Open(Name{"shop", "a"})
	a.Hold(5)
	a.Close()
	if again != a || n.connections.Load() != 1 {
		t.Error("an account that another still has was closed")
	}
	a.Close()
	if n.connections.Load() != 0 || n.buffers.Load() != 0 || len(n.workloads) != 0 {
		t.Error("a closed account is still charged to the node")
	}
}

func TestWithoutLimits(t *testing.T) {
	n := NewNode(Limits{})
	a := n.Open(Name{})
	for range 100_000 {
		if !a.Admit() {
			t.Fatal("refused")
		}
	}
	a.Hold(1 << 40)
	if a.Pressure() != hbone.Relaxed {
		t.Error("pressure without a limit")
	}
}

func TestPressure(t *testing.T) {
	n := NewNode(Limits{Buffers: 1200})
	a, b := n.Open(Name{"shop", "a"}), n.Open(Name{"shop", "b"})
	for _, step := range []struct {
		of   *Account
		hold int64
		a, b hbone.Pressure
	}{
		{a, 399, hbone.Relaxed, hbone.Relaxed},
		{a, 1, hbone.Slow, hbone.Relaxed},
		{a, 200, hbone.Cut, hbone.Relaxed},
		{b, 199, hbone.Cut, hbone.Relaxed}, // the other has still room
		{b, 3, hbone.Cut, hbone.Slow},
		{a, -600, hbone.Relaxed, hbone.Relaxed},
	} {
		step.of.Hold(step.hold)
		if a.Pressure() != step.a || b.Pressure() != step.b {
			t.Errorf("after %s holds %d more: %d and %d, want %d and %d", step.of.name.Pod, step.hold, a.Pressure(), b.Pressure(), step.a, step.b)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	n := NewNode(Limits{Connections: 50, Buffers: 1000})
	var all sync.WaitGroup
	for i := range 8 {
		a := n.Open(Name{"shop", string(rune('a' + i/2))})
		all.Go(func() {
			for range 2000 {
				if a.Admit() {
					a.Hold(10)
					a.Pressure()
					a.Hold(-10)
					a.Leave()
				} else {
					a.Shed(Connections)
				}
				if most := n.connections.Load(); most > 50+8 {
					t.Errorf("%d connections", most)
				}
			}
			a.Close()
		})
	}
	all.Wait()
	if n.connections.Load() != 0 || n.buffers.Load() != 0 {
		t.Error("something is left")
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		memory, files int64
		want          Limits
	}{
		{0, 0, Limits{}},
		{1 << 30, 0, Limits{Connections: 32768, Buffers: 512 << 20}},
		{1 << 30, 3000, Limits{Connections: 1000, Buffers: 512 << 20}},
		{0, 3000, Limits{Connections: 1000}},
		{32 << 20, 1 << 20, Limits{Connections: 1024, Buffers: 16 << 20}},
	} {
		if got := Share(tt.memory, tt.files); got != tt.want {
			t.Errorf("Share(%d, %d) = %+v, want %+v", tt.memory, tt.files, got, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	n, registry := NewNode(Limits{}), prometheus.NewPedanticRegistry()
	if err := n.Register(registry, func() time.Duration { return 40 * time.Microsecond }); err != nil {
		t.Fatal(err)
	}
	a := n.Open(Name{"shop", "a"})
	n.Open(Name{"shop", "a"}) // one of its name that replaces it
	n.Open(Name{"bank", "b"}).Close()
	a.Enter()
	a.Enter()
	a.Hold(100)
	a.Did(Work{TunnelBytes: 5, PlainBytes: 2, Steps: 1})
	if leftOut, log := a.Shed(Memory); !log || leftOut != 0 {
		t.Error("the first one was not logged")
	}
	const want = `
# HELP istio_ztunnel_other_cpu_seconds Processor time of ztunnel that is charged to no workload here: configuration, names, metrics, and workloads that have gone.
# TYPE istio_ztunnel_other_cpu_seconds counter
istio_ztunnel_other_cpu_seconds 1.1988e-05
# HELP istio_ztunnel_workload_bytes Bytes that the workload's connections have carried, either way.
# TYPE istio_ztunnel_workload_bytes counter
istio_ztunnel_workload_bytes{namespace="shop",pod="a"} 7
# HELP istio_ztunnel_workload_connections Connections open now, tunnels of peers and their handshakes included.
# TYPE istio_ztunnel_workload_connections gauge
istio_ztunnel_workload_connections{namespace="shop",pod="a"} 2
# HELP istio_ztunnel_workload_cpu_seconds Processor time of ztunnel, divided by the bytes, steps, connections and handshakes of the workload.
# TYPE istio_ztunnel_workload_cpu_seconds counter
istio_ztunnel_workload_cpu_seconds{namespace="shop",pod="a"} 2.8012e-05
# HELP istio_ztunnel_workload_memory Bytes charged to the workload: what waits for receivers that lag, and 16 KiB for each connection.
# TYPE istio_ztunnel_workload_memory gauge
istio_ztunnel_workload_memory{namespace="shop",pod="a"} 32868
# HELP istio_ztunnel_workload_shed_total Connections refused, and streams cut, because the workload has its share of what the node has.
# TYPE istio_ztunnel_workload_shed_total counter
istio_ztunnel_workload_shed_total{namespace="shop",pod="a",reason="memory"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
