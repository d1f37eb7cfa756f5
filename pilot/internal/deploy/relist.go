package deploy

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// relist holds the Gateways whose added listeners have changed, until the leader takes them: each once, however often they change.
type relist struct {
	ready chan struct{} // holds one token: there are some

	mu       *sync.Mutex
	gateways map[types.NamespacedName]struct{} // guarded by mu
}

func newRelist() relist {
	return relist{ready: make(chan struct{}, 1), mu: &sync.Mutex{}, gateways: map[types.NamespacedName]struct{}{}}
}

func (l relist) add(gateways []types.NamespacedName) {
	l.mu.Lock()
	for _, key := range gateways {
		l.gateways[key] = struct{}{}
	}
	l.mu.Unlock()
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l relist) take() []types.NamespacedName {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Collect(maps.Keys(l.gateways))
	clear(l.gateways)
	return out
}
