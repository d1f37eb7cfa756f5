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
		rivals: map[string]map[*computed]*held[O]{},
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
	rivals map[string]map[*computed]*held[O] // output key → the inputs that make it, but whose value does not count → their values
	dirty  []string                          // input keys to compute again; repeated now and then

	// guarded by needsMu: what fn has fetched so far, by collection
	needsMu sync.Mutex
	needs   map[int]func() bool
}

// computed is one input, with the keys of what it made of itself.
type computed struct {
	reader
	outputs []string
}

func (d *derived[I, O]) feed(events []Event[I]) {
	if len(events) == 0 {
		return
	}
	d.dirty = slices.Grow(d.dirty, len(events))
	for _, e := range events {
		d.dirty = append(d.dirty, e.Key)
	}
	d.graph.mark(d)
}

// invalidate is told once for each reader, until that has read again.
func (d *derived[I, O]) invalidate(inputKey string) {
	d.dirty = append(d.dirty, inputKey)
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
	slices.Sort(d.dirty) // that of one feed is sorted already
	dirty := slices.Compact(d.dirty)
	d.dirty = nil // not kept: the first load is the largest
	next := newWrites[O](len(dirty))
	if len(d.inputs) == 0 {
		d.inputs = make(map[string]*computed, len(dirty)) // see store.commit
	}
	t := &tracker{order: d.id, name: d.name, graph: d.graph, needs: map[int]func() bool{}}
	for _, k := range dirty {
		d.recompute(k, t, next)
	}
	d.needsMu.Lock()
	maps.Copy(d.needs, t.needs)
	d.needsMu.Unlock()
	d.commit(next)
}

func (d *derived[I, O]) recompute(inputKey string, t *tracker, next *writes[O]) {
	in, c := d.from.find(inputKey), d.inputs[inputKey]
	if c == nil {
		if in == nil {
			return
		}
		c = &computed{reader: reader{of: d, key: inputKey}}
		d.inputs[inputKey] = c
	}
	t.begin(&c.reader)
	var made []O
	if in != nil {
		made = d.fn(Fetch{t}, *in)
	}
	c.setUses(t.read)
	old := c.outputs
	var outputs []string
	for _, o := range made {
		k := d.key(o)
		if slices.Contains(outputs, k) {
			continue
		}
		if outputs == nil {
			outputs = make([]string, 0, len(made))
		}
		outputs = append(outputs, k)
		d.claim(k, &held[O]{value: o, by: c}, next)
	}
	for _, k := range old {
		if !slices.Contains(outputs, k) {
			d.yield(k, c, next)
		}
	}
	if c.outputs = outputs; len(outputs) == 0 && len(c.uses) == 0 {
		delete(d.inputs, inputKey)
	}
}

// current is the value of an output that counts as of now, in the middle of a flush; nil when there is none.
func (d *derived[I, O]) current(k string, next *writes[O]) *held[O] {
	if v, ok := next.values[k]; ok {
		return v
	}
	return d.values[k]
}

// claim records that an input makes the output k. Of several claims the one of the smallest input key counts.
func (d *derived[I, O]) claim(k string, v *held[O], next *writes[O]) {
	if h := d.current(k, next); h != nil && h.by != v.by {
		if h.by.key < v.by.key {
			d.rival(k, v)
			return
		}
		d.rival(k, &held[O]{value: h.value, by: h.by}) // a copy: if v is equal, h stays in its place and is then another's
		d.dropRival(k, v.by)
	}
	next.put(k, v)
}

// yield records that an input no longer makes the output k: the next claim, if there is one, takes its place.
func (d *derived[I, O]) yield(k string, c *computed, next *writes[O]) {
	if h := d.current(k, next); h == nil || h.by != c {
		d.dropRival(k, c)
		return
	}
	var heir *held[O]
	for _, r := range d.rivals[k] {
		if heir == nil || r.by.key < heir.by.key {
			heir = r
		}
	}
	next.put(k, heir)
	if heir != nil {
		d.dropRival(k, heir.by)
	}
}

func (d *derived[I, O]) rival(k string, v *held[O]) {
	if d.rivals[k] == nil {
		d.rivals[k] = map[*computed]*held[O]{}
	}
	d.rivals[k][v.by] = v
}

func (d *derived[I, O]) dropRival(k string, c *computed) {
	if delete(d.rivals[k], c); len(d.rivals[k]) == 0 {
		delete(d.rivals, k)
	}
}
