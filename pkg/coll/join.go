package coll

// Join is the union of collections. Where several hold a key, the first of them counts. It costs no memory beside theirs.
func Join[T any](name string, parts ...Collection[T]) Collection[T] {
	g, stores := joinable(name, parts)
	g.mu.Lock()
	defer g.mu.Unlock()
	u := &union[T]{store: newStore[T](g, name, nil), before: map[string]*T{}}
	u.synced, u.equal = func() bool { return allSynced(stores) }, stores[len(stores)-1].equal
	u.values, u.parts = nil, stores
	for i, s := range stores {
		s.downstream = append(s.downstream, func(events []Event[T]) { u.feed(i, events) })
	}
	return u
}

// joinable returns the parts, which belong to one graph. Unions among them are taken apart: their values change before they are
// computed.
func joinable[T any](name string, parts []Collection[T]) (*Graph, []*store[T]) {
	if len(parts) == 0 {
		panic("coll: join " + name + " of nothing")
	}
	var stores []*store[T]
	for _, p := range parts {
		s := p.base()
		if s.parts != nil {
			stores = append(stores, s.parts...)
		} else {
			stores = append(stores, s)
		}
		if s.graph != stores[0].graph {
			panic("coll: join " + name + " of collections of several graphs")
		}
	}
	return stores[0].graph, stores
}

func allSynced[T any](parts []*store[T]) bool {
	for _, p := range parts {
		if !p.synced() {
			return false
		}
	}
	return true
}

// union reads its values from its parts, also while a flush is at them: whoever depends on it is made after it, thus computed when
// all of its parts are.
type union[T any] struct {
	*store[T]
	before map[string]*T // guarded by Graph.mu: of the keys that changed, the value at the start of the flush; nil is none
}

// feed takes changes that have been made to the part i.
func (u *union[T]) feed(i int, events []Event[T]) {
	for _, e := range events {
		if _, known := u.before[e.Key]; !known {
			u.before[e.Key] = u.valueBefore(i, e)
		}
	}
	if len(events) > 0 {
		u.graph.mark(u)
	}
}

// valueBefore is that of a key before the change of the part i, which is the first one of this flush.
func (u *union[T]) valueBefore(i int, e Event[T]) *T {
	for j, p := range u.parts {
		v := e.Old
		if j != i {
			v = p.find(e.Key)
		}
		if v != nil {
			return v
		}
	}
	return nil
}

func (u *union[T]) process() {
	before := u.before
	u.before = map[string]*T{} // a cleared map keeps its size, and walking it costs that: the first load would stay to be paid
	events := make([]Event[T], 0, len(before))
	for k, old := range before {
		if e, changed := u.change(k, old, u.find(k)); changed {
			events = append(events, e)
		}
	}
	u.announce(events)
}

// JoinMerge is the union of collections; merge makes one value of those that share a key, which it gets in the order of
// the parts (at least one of them). merge must be pure and must not modify its input.
func JoinMerge[T any](name string, merge func([]T) T, parts ...Collection[T]) Collection[T] {
	g, stores := joinable(name, parts)
	g.mu.Lock()
	defer g.mu.Unlock()
	j := &joined[T]{store: newStore[T](g, name, nil), of: stores, merge: merge, dirty: map[string]struct{}{}}
	j.synced = func() bool { return allSynced(stores) }
	j.equal = stores[len(stores)-1].equal
	for _, s := range stores {
		s.downstream = append(s.downstream, j.feed)
		j.feed(s.snapshot())
	}
	g.run()
	return j
}

type joined[T any] struct {
	*store[T]
	// immutable
	of    []*store[T]
	merge func([]T) T

	dirty map[string]struct{} // guarded by Graph.mu: keys to merge again
}

func (j *joined[T]) feed(events []Event[T]) {
	for _, e := range events {
		j.dirty[e.Key] = struct{}{}
	}
	if len(events) > 0 {
		j.graph.mark(j)
	}
}

func (j *joined[T]) process() {
	next := make(map[string]*held[T], len(j.dirty))
	for k := range j.dirty {
		next[k] = j.at(k)
	}
	j.dirty = map[string]struct{}{} // see union.process
	j.commit(next)
}

// at computes the value of a key; nil if no part has it.
func (j *joined[T]) at(k string) *held[T] {
	var values []T
	for _, p := range j.of {
		if v := p.find(k); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return nil
	}
	return &held[T]{value: j.merge(values)}
}
