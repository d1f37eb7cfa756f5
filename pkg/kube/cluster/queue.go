package cluster

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// event is something that Run's goroutine acts on. Exactly one of the fields after kind is set.
type event struct {
	kind    schema.GroupVersionKind
	put     *put
	remove  *types.NamespacedName
	replace *[]put
	// settled: it is known that the kind cannot be listed at present, for the reason if there is one; there is no need to wait.
	settled *kube.ObjectError
	// failed: the kind ought to be listed, but is refused.
	failed *kube.ObjectError
	// present and absent: a CRD, by name.
	present, absent string
	// presentAll: all CRDs that there are, by name.
	presentAll map[string]bool
	refresh    bool
}

// put is an object as it is in the API: one to use, or what is wrong with it. Warnings come with an object.
type put struct {
	name   types.NamespacedName
	object kube.Object
	errs   []kube.ObjectError
}

// queue takes events from any goroutine and gives them to one, in order.
type queue struct {
	ready chan struct{} // has an element when events is not empty

	// guarded by mu
	mu     sync.Mutex
	events []event
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

func (q *queue) add(e event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns all events.
func (q *queue) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}
