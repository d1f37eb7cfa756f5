package xds

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// Revision is one received version of a resource.
type Revision struct {
	Version string
	Content *anypb.Any
	Updated time.Time
}

// Failure is the last version of a resource that was refused.
type Failure struct {
	Revision
	Details string
}

// Resource is what is known of one, for the configuration dump. Active serves; Warming waits for what it depends on.
type Resource struct {
	Name            string
	Active, Warming *Revision
	Failure         *Failure
}

// compiled is a revision and its table.
type compiled[T any] struct {
	Revision
	table *T
	// refs are the names of what it depends on: routes of a listener, endpoints of a cluster, clusters of routes; secrets those of a
	// listener.
	refs, secrets []string
}

// item is the state of one resource.
type item[T any] struct {
	active, warming *compiled[T]
	since           time.Time // when the first of the versions that wait came
	failure         *Failure
}

// promote makes the waiting version the one that serves.
func (i *item[T]) promote() { i.active, i.warming = i.warming, nil }

// collection is the resources of one type.
type collection[T any] struct {
	items map[string]*item[T]
	// warming are the names whose newest version waits.
	warming map[string]struct{}
	// counts of updates of resources, for statistics
	success, rejected uint64
}

func newCollection[T any]() *collection[T] {
	return &collection[T]{items: map[string]*item[T]{}, warming: map[string]struct{}{}}
}

// of returns the item of a name, made when it is missing.
func (c *collection[T]) of(name string) *item[T] {
	i := c.items[name]
	if i == nil {
		i = &item[T]{}
		c.items[name] = i
	}
	return i
}

// remove forgets an item and returns what it was.
func (c *collection[T]) remove(name string) (active, warming *compiled[T]) {
	i := c.items[name]
	if i == nil {
		return nil, nil
	}
	delete(c.items, name)
	delete(c.warming, name)
	return i.active, i.warming
}

// await makes next the waiting version, and returns the one that waited before.
func (c *collection[T]) await(name string, next *compiled[T]) (old *compiled[T]) {
	i := c.of(name)
	if i.warming == nil {
		i.since = next.Updated
	}
	old, i.warming = i.warming, next
	c.warming[name] = struct{}{}
	return old
}

// list is sorted by name.
func (c *collection[T]) list() []Resource {
	out := make([]Resource, 0, len(c.items))
	for name, i := range c.items {
		r := Resource{Name: name, Failure: i.failure}
		if i.active != nil {
			r.Active = &i.active.Revision
		}
		if i.warming != nil {
			r.Warming = &i.warming.Revision
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// references counts how often names are referred to, and collects which became referred to and which are no longer.
type references struct {
	count map[string]int
	dirty map[string]struct{} // names whose count passed 0 since the last settle
}

func newReferences() *references {
	return &references{count: map[string]int{}, dirty: map[string]struct{}{}}
}

func (r *references) add(names []string, by int) {
	for _, name := range names {
		before := r.count[name]
		after := before + by
		if after <= 0 {
			delete(r.count, name)
		} else {
			r.count[name] = after
		}
		if before <= 0 || after <= 0 {
			r.dirty[name] = struct{}{}
		}
	}
}

// settle returns, sorted, the names that passed 0: those that are now referred to, and those that are not.
func (r *references) settle() (wanted, unwanted []string) {
	for name := range r.dirty {
		if r.count[name] > 0 {
			wanted = append(wanted, name)
		} else {
			unwanted = append(unwanted, name)
		}
	}
	clear(r.dirty)
	slices.Sort(wanted)
	slices.Sort(unwanted)
	return wanted, unwanted
}
