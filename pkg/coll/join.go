package coll

// Join is the union of collections. Where several hold a key, the first of them counts. It costs no memory beside theirs.
func Join[T any](name string, parts ...Collection[T]) Collection[T] {
	g, stores := joinable(name, parts)
	g.mu.Lock()
	defer g.mu.Unlock()
	u := &union[T]{store: newStore[T](g, name, nil), fed: make([][]Event[T], len(stores))}
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
	fed [][]Event[T] // guarded by Graph.mu: of each part the changes of this flush, ordered by key; a part changes once before them all
}

// feed takes changes that have been made to the part i.
func (u *union[T]) feed(i int, events []Event[T]) {
	if len(events) > 0 {
		u.fed[i] = events
		u.graph.mark(u)
	}
}

// process merges what the parts have told.
func (u *union[T]) process() {
	total := 0
	for _, events := range u.fed {
		total += len(events)
	}
	events := make([]Event[T], 0, total)
	for {
		k, more := u.first()
		if !more {
			break
		}
		before, now := u.pop(k)
		if e, changed := u.change(k, before, now); changed {
			events = append(events, e)
		}
	}
	clear(u.fed)
	u.announce(events)
}

// first is the smallest key that is left.
func (u *union[T]) first() (k string, more bool) {
	for _, events := range u.fed {
		if len(events) > 0 && (!more || events[0].Key < k) {
			k, more = events[0].Key, true
		}
	}
	return k, more
}

// pop takes a key out and returns its value before this flush, and now; nil is none. The first part that has one counts.
func (u *union[T]) pop(k string) (before, now *T) {
	for i, p := range u.parts {
		var was, is *T
		if events := u.fed[i]; len(events) > 0 && events[0].Key == k {
			was, is = events[0].Old, events[0].New
			u.fed[i] = events[1:]
		} else if before == nil || now == nil {
			was = p.find(k)
			is = was
		}
		if before == nil {
			before = was
		}
		if now == nil {
			now = is
		}
	}
	return before, now
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
	next := newWrites[T](len(j.dirty))
	for k := range j.dirty {
		next.put(k, j.at(k))
	}
	j.dirty = map[string]struct{}{} // a cleared map keeps its size, and walking it costs that: the first load would stay to be paid
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
