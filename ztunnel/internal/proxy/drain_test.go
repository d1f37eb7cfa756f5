package proxy

import (
	"context"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// Who drains twice gives back what the instance has, once: the account may have another holder, the pod that has replaced this one.
func TestDrainTwice(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	if _, _, err := b.dial(t); err != nil {
		t.Fatal(err)
	}
	next := b.shared.Open(budget.Name{Namespace: "shop", Pod: "server"})
	defer next.Close()
	next.Enter()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var drains sync.WaitGroup
	// The first has all the time in the world, and the connection would go on: it ends with the context of the others.
	drains.Go(func() { b.proxies[1].Drain(context.Background()) })
	drains.Go(func() { b.proxies[1].Drain(ended) })
	drains.Wait()
	b.proxies[1].Drain(ended)
	if got := b.count(t, "istio_ztunnel_workload_connections", "server"); got != 1 {
		t.Errorf("the account that another has is charged with %v connections, want its one", got)
	}
	next.Leave()
	if got := b.shared.Open(budget.Name{Namespace: "shop", Pod: "server"}); got != next {
		t.Error("the account was closed for the one who still has it")
	} else {
		got.Close()
	}
}
