package coll

// Join is the union of collections. Where several hold a key, the first of them counts.
func Join[T any](name string, parts ...Collection[T]) Collection[T] {
	return JoinMerge(name, func(values []T) T { return values[0] }, parts...)
}

// JoinMerge is the union of collections; merge makes one value of those that share a key, which it gets in the order of
// the parts (at least one of them). merge must be pure and must not modify its input.
func JoinMerge[T any](name string, merge func([]T) T, parts ...Collection[T]) Collection[T] {
	if len(parts) == 0 {
		panic("coll: join " + name + " of nothing")
	}
	g := parts[0].base().graph
	g.mu.Lock()
	defer g.mu.Unlock()
	j := &joined[T]{store: newStore[T](g, name, nil), merge: merge, dirty: map[string]struct{}{}}
	j.synced = j.hasSynced
	for _, p := range parts {
		s := p.base()
		if s.graph != g {
			panic("coll: join " + name + " of collections of several graphs")
		}
		j.parts = append(j.parts, s)
		j.equal = s.equal
		s.downstream = append(s.downstream, j.feed)
		j.feed(s.snapshot())
	}
	g.run()
	return j
}

type joined[T any] struct {
	*store[T]
	// immutable
	parts []*store[T]
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

func (j *joined[T]) hasSynced() bool {
	for _, p := range j.parts {
		if !p.synced() {
			return false
		}
	}
	return true
}

func (j *joined[T]) process() {
	next := make(map[string]*T, len(j.dirty))
	for k := range j.dirty {
		next[k] = j.at(k)
	}
	j.dirty = map[string]struct{}{} // a cleared map keeps its size, and walking it costs that: the first load would stay to be paid
	j.commit(next)
}

// at computes the value of a key; nil if no part has it.
func (j *joined[T]) at(k string) *T {
	var values []T
	for _, p := range j.parts {
		if v := p.values[k]; v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return nil
	}
	v := j.merge(values)
	return &v
}
