package coll

import "fmt"

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
		s.readers[key] = f.to.record(s.readers[key], func(d dependent) { forget(s.readers, key, d) })
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
		d := f.to.who
		if _, known := s.scanners[d]; !known {
			f.to.release = append(f.to.release, func(d dependent) { delete(s.scanners, d) })
		}
		s.scanners[d] = append(s.scanners[d], pass)
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
		x.readers[k] = f.to.record(x.readers[k], func(d dependent) { forget(x.readers, k, d) })
	}
	return x.Lookup(k)
}

// FetchSingleton reads the value of a Singleton.
func FetchSingleton[T any](f Fetch, c Collection[T]) (T, bool) { return FetchOne(f, c, SingletonKey) }

// dependent is one input of one derived collection. All of this file is guarded by Graph.mu.
type dependent struct {
	by  invalidator
	key string
}

type invalidator interface{ invalidate(inputKey string) }

func (d dependent) invalidate() { d.by.invalidate(d.key) }

// dependents is a set.
type dependents map[dependent]struct{}

func (ds dependents) invalidate() {
	for d := range ds {
		d.invalidate()
	}
}

func forget[K comparable](readers map[K]dependents, k K, d dependent) {
	if delete(readers[k], d); len(readers[k]) == 0 {
		delete(readers, k)
	}
}

// tracker records what one call of a function reads.
type tracker struct {
	who     dependent
	order   int
	name    string
	graph   *Graph
	release []func(dependent) // undo each recorded dependency
	needs   map[int]func() bool
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

func (t *tracker) record(set dependents, undo func(dependent)) dependents {
	if _, known := set[t.who]; known {
		return set
	}
	if set == nil {
		set = dependents{}
	}
	set[t.who] = struct{}{}
	t.release = append(t.release, undo)
	return set
}
