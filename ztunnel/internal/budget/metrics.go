package budget

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reason why something of a workload was refused or cut.
type Reason uint8

// The reasons.
const (
	// Connections: it has as many as there are for it.
	Connections Reason = iota
	// Handshakes: as many peers as may are in the middle of theirs.
	Handshakes
	// PeerHandshakes: the same, from one address.
	PeerHandshakes
	// Memory: a receiver lags, and there is no memory for what it does not take.
	Memory

	reasons = iota
)

// String is the value of the metric's label.
func (r Reason) String() string {
	names := [reasons]string{"connections", "handshakes", "handshakes_of_peer", "memory"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// collector tells what each workload of the node has.
type collector struct {
	node                                         *Node
	spent                                        func() time.Duration
	connections, memory, bytes, shed, cpu, other *prometheus.Desc
}

// Register makes the node's workloads appear in the metrics. A workload's disappear with its account. Spent is the processor time that the
// process has used so far.
func (n *Node) Register(registerer prometheus.Registerer, spent func() time.Duration) error {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("istio_ztunnel_workload_"+name, help, append([]string{"namespace", "pod"}, labels...), nil)
	}
	return registerer.Register(&collector{
		node: n, spent: spent,
		connections: desc("connections", "Connections open now, tunnels of peers and their handshakes included."),
		memory:      desc("memory", "Bytes charged to the workload: what waits for receivers that lag, and 16 KiB for each connection."),
		bytes:       desc("bytes", "Bytes that the workload's connections have carried, either way."),
		shed:        desc("shed_total", "Connections refused, and streams cut, because the workload has its share of what the node has.", "reason"),
		cpu:         desc("cpu_seconds", "Processor time of ztunnel, divided by the bytes, steps, connections and handshakes of the workload."),
		other: prometheus.NewDesc("istio_ztunnel_other_cpu_seconds",
			"Processor time of ztunnel that is charged to no workload here: configuration, names, metrics, and workloads that have gone.", nil, nil),
	})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.memory, c.bytes, c.shed, c.cpu, c.other} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.node.settleDue(c.spent)
	accounts, cpu, other := c.node.accounts()
	out <- prometheus.MustNewConstMetric(c.other, prometheus.CounterValue, other.Seconds())
	for n, a := range accounts {
		names := []string{a.name.Namespace, a.name.Pod}
		connections := a.connections.Load()
		out <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(connections), names...)
		out <- prometheus.MustNewConstMetric(c.memory, prometheus.GaugeValue, float64(connections*ConnectionCost+a.buffers.Load()), names...)
		out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(a.bytes.Load()), names...)
		out <- prometheus.MustNewConstMetric(c.cpu, prometheus.CounterValue, cpu[n].Seconds(), names...)
		for r := range Reason(reasons) {
			if n := a.shed[r].Load(); n > 0 {
				out <- prometheus.MustNewConstMetric(c.shed, prometheus.CounterValue, float64(n), append(names, r.String())...)
			}
		}
	}
}
