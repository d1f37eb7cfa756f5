package registry

import (
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// workloadScope is the scope of all who ask for workloads as a type of their own, which hardly anybody does: the resources are made
// only while somebody does, and kept by the xDS server alone.
const workloadScope = "workloads"

// workloadFeed publishes workloads as a type of their own.
type workloadFeed struct {
	mu        sync.Mutex
	publisher Publisher // guarded by mu; nil while nobody is published to
	wanted    bool      // guarded by mu: the scope is open
	stop      func()    // guarded by mu; nil while nothing is published
}

// set changes what is wanted of the feed, and starts or stops it.
func (r *Registry) setFeed(change func(*workloadFeed)) {
	w := &r.feed
	w.mu.Lock()
	defer w.mu.Unlock()
	if change(w); w.stop != nil {
		w.stop()
		w.stop = nil
	}
	if w.publisher == nil || !w.wanted {
		return
	}
	p := w.publisher
	// Clients wait for the first publication, even of nothing. None of a change comes before it.
	var first sync.Once
	empty := func() { p.PublishScope(workloadScope, server.Update{TypeURL: WorkloadType}) }
	var order sync.Mutex
	w.stop = r.workloads.Register(func(events []coll.Event[*address]) {
		order.Lock()
		defer order.Unlock()
		first.Do(func() {})
		p.PublishScope(workloadScope, workloadUpdate(events))
	})
	order.Lock()
	defer order.Unlock()
	first.Do(empty)
}

func workloadUpdate(events []coll.Event[*address]) server.Update {
	u := server.Update{TypeURL: WorkloadType}
	for _, e := range events {
		if e.New == nil {
			u.Removed = append(u.Removed, e.Key)
			continue
		}
		u.Changed = append(u.Changed, (*e.New).asWorkload())
	}
	return u
}
