package proxy

import (
	"bytes"
	"io"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// Processor time is charged to the pods whose connections were carried, to no other, and all of it is somewhere.
func TestProcessorTimeIsCharged(t *testing.T) {
	b := newBed(t)
	idle := b.shared.Open(budget.Name{Namespace: "shop", Pod: "idle"})
	defer idle.Close()
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	conn, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = conn.Write(bytes.Repeat([]byte("x"), 4<<20))
		_ = conn.(netx.Stream).CloseWrite()
	}()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	b.log.Wait(t, `connection complete`, `direction="outbound"`)
	b.log.Wait(t, `connection complete`, `direction="inbound"`)

	const spent = time.Minute
	registry := prometheus.NewRegistry()
	if err := b.shared.Register(registry, func() time.Duration { return spent }); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	charged, sum := map[string]float64{}, 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "istio_ztunnel_workload_cpu_seconds":
				charged[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
				sum += m.GetCounter().GetValue()
			case "istio_ztunnel_other_cpu_seconds":
				sum += m.GetCounter().GetValue()
			}
		}
	}
	if math.Abs(sum-spent.Seconds()) > 1e-6 {
		t.Errorf("%v s are charged, %v were spent", sum, spent)
	}
	for _, pod := range []string{"client", "server"} {
		if charged[pod] <= 0 || charged[pod] >= spent.Seconds()/2 {
			t.Errorf("%s is charged %v s", pod, charged[pod])
		}
	}
	if got, ok := charged["idle"]; got != 0 || !ok {
		t.Errorf("a pod without connections is charged %v s", got)
	}
}
