package coll

import (
	"maps"
	"slices"
	"sync"
)

// Map computes one value, or none, from each input. fn must be pure: it may read in, and other collections through Fetch.
// Outputs are keyed by key; when two inputs make the same key, the one with the smaller input key counts.
func Map[I, O any](name string, in Collection[I], key func(O) string, fn func(Fetch, I) (O, bool), opts ...Option) Collection[O] {
	return FlatMap(name, in, key, func(f Fetch, i I) []O {
		if o, ok := fn(f, i); ok {
			return []O{o}
		}
		return nil
	}, opts...)
}

// FlatMap computes any number of values from each input; otherwise it is like Map. When one input makes the same key
// twice, the first one counts.
func FlatMap[I, O any](name string, in Collection[I], key func(O) string, fn func(Fetch, I) []O, opts ...Option) Collection[O] {
	from := in.base()
	from.graph.mu.Lock()
	defer from.graph.mu.Unlock()
	d := &derived[I, O]{
		store:  newStore[O](from.graph, name, opts),
		from:   from,
		key:    key,
		fn:     fn,
		inputs: map[string]*computed{},
		owner:  map[string]string{},
		rivals: map[string]map[string]*O{},
		dirty:  map[string]struct{}{},
		needs:  map[int]func() bool{},
	}
	d.synced = d.hasSynced
	from.downstream = append(from.downstream, d.feed)
	d.feed(from.snapshot())
	from.graph.run()
	return d
}

// SingletonKey is the key of a Singleton's value.
const SingletonKey = ""

// Singleton computes one value, or none, from what it fetches.
func Singleton[O any](g *Graph, name string, fn func(Fetch) (O, bool), opts ...Option) Collection[O] {
	once := NewStatic(g, name+"/input", func(struct{}) string { return SingletonKey })
	once.Set(struct{}{})
	once.MarkSynced()
	return Map(name, once, func(O) string { return SingletonKey }, func(f Fetch, _ struct{}) (O, bool) { return fn(f) }, opts...)
}

// derived is a collection computed from another one, input by input.
type derived[I, O any] struct {
	*store[O]
	// immutable
	from *store[I]
	key  func(O) string
	fn   func(Fetch, I) []O

	// guarded by Graph.mu
	inputs map[string]*computed
	owner  map[string]string        // output key → the input key whose value counts
	rivals map[string]map[string]*O // output key → other input keys that make it → their values
	dirty  map[string]struct{}      // input keys to compute again

	// guarded by needsMu: what fn has fetched so far, by collection
	needsMu sync.Mutex
	needs   map[int]func() bool
}

// computed is what one input made of itself, and what it read for that.
type computed struct {
	outputs []string
	release []func(dependent)
}

func (d *derived[I, O]) feed(events []Event[I]) {
	for _, e := range events {
		d.invalidate(e.Key)
	}
}

func (d *derived[I, O]) invalidate(inputKey string) {
	d.dirty[inputKey] = struct{}{}
	d.graph.mark(d)
}

func (d *derived[I, O]) hasSynced() bool {
	if !d.from.synced() {
		return false
	}
	d.needsMu.Lock()
	defer d.needsMu.Unlock()
	for _, synced := range d.needs {
		if !synced() {
			return false
		}
	}
	return true
}

// process computes the dirty inputs again, and commits what came of it.
func (d *derived[I, O]) process() {
	dirty := d.dirty
	d.dirty = map[string]struct{}{}
	next := map[string]*O{}
	for _, k := range slices.Sorted(maps.Keys(dirty)) {
		d.recompute(k, next)
	}
	d.commit(next)
}

func (d *derived[I, O]) recompute(inputKey string, next map[string]*O) {
	old := d.inputs[inputKey]
	if old != nil {
		for _, release := range old.release {
			release(dependent{d, inputKey})
		}
	}
	made, release := d.call(inputKey)
	now := &computed{release: release}
	for _, o := range made {
		k := d.key(o)
		if !slices.Contains(now.outputs, k) {
			now.outputs = append(now.outputs, k)
			d.claim(k, inputKey, &o, next)
		}
	}
	if old != nil {
		for _, k := range old.outputs {
			if !slices.Contains(now.outputs, k) {
				d.yield(k, inputKey, next)
			}
		}
	}
	if len(now.outputs) == 0 && len(now.release) == 0 {
		delete(d.inputs, inputKey)
		return
	}
	d.inputs[inputKey] = now
}

// call runs fn for one input, if that still exists, and returns what it made and how to forget what it read.
func (d *derived[I, O]) call(inputKey string) ([]O, []func(dependent)) {
	in := d.from.values[inputKey]
	if in == nil {
		return nil, nil
	}
	t := &tracker{who: dependent{d, inputKey}, order: d.id, name: d.name, graph: d.graph, needs: map[int]func() bool{}}
	made := d.fn(Fetch{t}, *in)
	d.needsMu.Lock()
	defer d.needsMu.Unlock()
	maps.Copy(d.needs, t.needs)
	return made, t.release
}

// claim records that inputKey makes the output k. Of several claims the one of the smallest input key counts.
func (d *derived[I, O]) claim(k, inputKey string, v *O, next map[string]*O) {
	holder, held := d.owner[k]
	switch {
	case held && holder < inputKey:
		d.rival(k, inputKey, v)
		return
	case held && holder > inputKey:
		d.rival(k, holder, d.current(k, next))
		delete(d.rivals[k], inputKey)
	}
	d.owner[k] = inputKey
	next[k] = v
}

// yield records that inputKey no longer makes the output k: the next claim, if there is one, takes its place.
func (d *derived[I, O]) yield(k, inputKey string, next map[string]*O) {
	if d.owner[k] != inputKey {
		d.dropRival(k, inputKey)
		return
	}
	if len(d.rivals[k]) == 0 {
		delete(d.owner, k)
		next[k] = nil
		return
	}
	heir := slices.Min(slices.Collect(maps.Keys(d.rivals[k])))
	d.owner[k] = heir
	next[k] = d.rivals[k][heir]
	d.dropRival(k, heir)
}

func (d *derived[I, O]) current(k string, next map[string]*O) *O {
	if v, ok := next[k]; ok {
		return v
	}
	return d.values[k]
}

func (d *derived[I, O]) rival(k, inputKey string, v *O) {
	if d.rivals[k] == nil {
		d.rivals[k] = map[string]*O{}
	}
	d.rivals[k][inputKey] = v
}

func (d *derived[I, O]) dropRival(k, inputKey string) {
	if delete(d.rivals[k], inputKey); len(d.rivals[k]) == 0 {
		delete(d.rivals, k)
	}
}
