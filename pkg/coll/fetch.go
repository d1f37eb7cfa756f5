package coll

import (
	"fmt"
	"slices"
)

// Fetch is handed to the function of a Map, FlatMap or Singleton to read other collections: what it reads is recorded, and
// the function runs again for this input when what it read changes. The zero Fetch reads without recording, for tests.
//
// It is only valid during the call.
type Fetch struct{ to *tracker }

// FetchOne reads one key: the function runs again when that key changes, also when it is added later.
func FetchOne[T any](f Fetch, c Collection[T], key string) (T, bool) {
	s := c.base()
	if f.to != nil {
		f.to.uses(s.graph, s.id, s.name, s.synced)
		f.to.record(keyed(s.readers, key))
	}
	return s.Get(key)
}

// FetchAll reads the values that pass the filter (all of them without one), in the order of their keys. The function runs
// again when a value that passes changes, or comes to pass. Each change of c asks every such filter: prefer FetchOne and
// FetchIndex where there are many inputs.
func FetchAll[T any](f Fetch, c Collection[T], filter ...func(T) bool) []T {
	s := c.base()
	pass := all(filter)
	if f.to != nil {
		f.to.uses(s.graph, s.id, s.name, s.synced)
		if f.to.record(&s.scanners) {
			s.filters[f.to.who] = nil // those of the call before
		}
		s.filters[f.to.who] = append(s.filters[f.to.who], pass)
	}
	values := s.List()
	if pass == nil {
		return values
	}
	kept := values[:0]
	for _, v := range values {
		if pass(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

func all[T any](filters []func(T) bool) func(T) bool {
	if len(filters) == 0 {
		return nil
	}
	return func(v T) bool {
		for _, f := range filters {
			if !f(v) {
				return false
			}
		}
		return true
	}
}

// FetchIndex reads the values under one key of an index, in the order of their primary keys: the function runs again
// when one of them changes, leaves, or another one joins.
func FetchIndex[T any, K comparable](f Fetch, i Index[T, K], k K) []T {
	x := i.index()
	if f.to != nil {
		f.to.uses(x.of.graph, x.of.id, x.of.name, x.of.synced)
		f.to.record(keyed(x.readers, k))
	}
	return x.Lookup(k)
}

// FetchSingleton reads the value of a Singleton.
func FetchSingleton[T any](f Fetch, c Collection[T]) (T, bool) { return FetchOne(f, c, SingletonKey) }

// tracker records what one call of a function reads.
type tracker struct {
	who   *reader
	order int
	name  string
	graph *Graph
	read  []*readers            // each once
	many  map[*readers]struct{} // the same, when they are many
	needs map[int]func() bool
}

// begin prepares for a call that is made for r.
func (t *tracker) begin(r *reader) {
	clear(t.read)
	r.stale = false
	t.who, t.read, t.many = r, t.read[:0], nil
}

// uses checks that the read goes to a collection made earlier, in the same graph: that is why there are no cycles and why
// each collection is computed once per flush.
func (t *tracker) uses(g *Graph, id int, name string, synced func() bool) {
	if g != t.graph {
		panic(fmt.Sprintf("coll: %s fetches %s, which belongs to another graph", t.name, name))
	}
	if id >= t.order {
		panic(fmt.Sprintf("coll: %s fetches %s, which was made after it", t.name, name))
	}
	t.needs[id] = synced
}

// record notes a read, and reports whether it is the first of this.
func (t *tracker) record(s *readers) bool {
	if t.many == nil {
		if slices.Contains(t.read, s) {
			return false
		}
		if len(t.read) == fewUses {
			t.many = make(map[*readers]struct{}, 2*fewUses)
			for _, r := range t.read {
				t.many[r] = struct{}{}
			}
		}
	}
	if t.many != nil {
		if _, known := t.many[s]; known {
			return false
		}
		t.many[s] = struct{}{}
	}
	t.read = append(t.read, s)
	return true
}
