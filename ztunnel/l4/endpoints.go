package l4

import (
	"iter"
	"strings"
	"sync"
)

// Endpoints is the set of workloads that back one service. It is immutable.
type Endpoints struct {
	members tree[string, *Workload] // by uid

	once sync.Once // guards the making of flat
	flat []*Workload
}

// List is by uid. The slice is shared: do not change it.
func (e *Endpoints) List() []*Workload {
	e.once.Do(func() {
		e.flat = make([]*Workload, 0, e.members.size)
		e.members.all(func(_ string, w *Workload) bool {
			e.flat = append(e.flat, w)
			return true
		})
	})
	return e.flat
}

// Len is how many there are.
func (e *Endpoints) Len() int { return e.members.size }

// All yields the endpoints by uid.
func (e *Endpoints) All() iter.Seq[*Workload] { return values(e.members) }

// with returns the set with w added or replaced.
func (e *Endpoints) with(by *edit, w *Workload) *Endpoints {
	next := &Endpoints{members: e.members}
	next.members.set(strings.Compare, by, w.UID, w)
	return next
}

// without returns the set without a uid.
func (e *Endpoints) without(by *edit, uid string) *Endpoints {
	next := &Endpoints{members: e.members}
	next.members.remove(strings.Compare, by, uid)
	return next
}
