package coll

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// store is what all collections have in common: values, subscribers, and who depends on them.
type store[T any] struct {
	// immutable after construction
	graph  *Graph
	name   string
	id     int
	equal  func(a, b T) bool
	synced func() bool
	parts  []*store[T] // of a union, which has no values of its own

	// guarded by mu for readers; written only by the flush, which also holds graph.mu
	mu     sync.RWMutex
	values map[string]*held[T]

	// guarded by graph.mu
	inDirty    bool
	events     []Event[T]                 // of this flush, until delivered
	downstream []func([]Event[T])         // collections made from this one
	indexes    []func([]Event[T])         // brought up to date with every commit
	readers    map[string]*readers        // fetched one key
	scanners   readers                    // fetched with filters
	filters    map[*reader][]func(T) bool // of the scanners; a nil filter is everything
	subs       []*subscriber[T]           // in order of registration
}

// held is a value, and the input that made it if the collection is derived.
type held[T any] struct {
	value T
	by    *computed // guarded by graph.mu
}

type subscriber[T any] struct{ fn func([]Event[T]) }

// newStore must be called with graph.mu held.
func newStore[T any](g *Graph, name string, opts []Option) *store[T] {
	s := &store[T]{
		graph:   g,
		name:    name,
		id:      g.adopt(),
		equal:   equalFunc[T](opts),
		values:  map[string]*held[T]{},
		readers: map[string]*readers{},
		filters: map[*reader][]func(T) bool{},
	}
	s.scanners.left = func(r *reader) { delete(s.filters, r) }
	return s
}

func (s *store[T]) base() *store[T] { return s }
func (s *store[T]) order() int      { return s.id }
func (s *store[T]) queued() *bool   { return &s.inDirty }
func (s *store[T]) Name() string    { return s.name }
func (s *store[T]) HasSynced() bool { return s.synced() }

func (s *store[T]) WaitSynced(ctx context.Context) error {
	return s.graph.waitFor(ctx, s.name, s.synced)
}

func (s *store[T]) Get(key string) (T, bool) {
	if v := s.find(key); v != nil {
		return *v, true
	}
	var zero T
	return zero, false
}

// find returns the value of a key, nil if there is none.
func (s *store[T]) find(key string) *T {
	for _, p := range s.parts {
		if v := p.find(key); v != nil {
			return v
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if h := s.values[key]; h != nil {
		return &h.value
	}
	return nil
}

func (s *store[T]) Len() int {
	if s.parts != nil {
		return len(s.keys())
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.values)
}

// keys returns all of them in order.
func (s *store[T]) keys() []string {
	if s.parts == nil {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return slices.Sorted(maps.Keys(s.values))
	}
	var all []string
	for _, p := range s.parts {
		all = append(all, p.keys()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *store[T]) List() []T {
	keys := s.keys()
	out := make([]T, 0, len(keys))
	for _, k := range keys {
		if v := s.find(k); v != nil { // else it went meanwhile
			out = append(out, *v)
		}
	}
	return out
}

func (s *store[T]) Register(fn func([]Event[T])) (unregister func()) {
	s.graph.mu.Lock()
	defer s.graph.mu.Unlock()
	if initial := s.snapshot(); len(initial) > 0 {
		fn(initial)
	}
	sub := &subscriber[T]{fn}
	s.subs = append(s.subs, sub)
	return func() {
		s.graph.mu.Lock()
		defer s.graph.mu.Unlock()
		s.subs = slices.DeleteFunc(s.subs, func(other *subscriber[T]) bool { return other == sub })
	}
}

// snapshot returns the current state as events. Callers hold graph.mu.
func (s *store[T]) snapshot() []Event[T] {
	keys := s.keys()
	events := make([]Event[T], 0, len(keys))
	for _, k := range keys {
		events = append(events, Event[T]{Kind: Added, Key: k, New: s.find(k)})
	}
	return events
}

// writes are new values of a flush, by key (nil: gone), of which the last one of a key counts.
type writes[T any] struct {
	values map[string]*held[T]
	keys   []string // each once; that sorting them costs little when they come in order is why they are kept
}

// newWrites returns none, with room for size.
func newWrites[T any](size int) *writes[T] {
	return &writes[T]{values: make(map[string]*held[T], size), keys: make([]string, 0, size)}
}

func (w *writes[T]) put(k string, v *held[T]) {
	before := len(w.values)
	if w.values[k] = v; len(w.values) > before {
		w.keys = append(w.keys, k)
	}
}

// commit applies new values, drops those that change nothing, and wakes whatever depends on the rest. Callers hold graph.mu.
func (s *store[T]) commit(next *writes[T]) {
	events := make([]Event[T], 0, len(next.keys))
	for _, k := range next.keys {
		before, now := s.values[k], next.values[k]
		if e, changed := s.change(k, before.pointer(), now.pointer()); changed {
			events = append(events, e)
		} else if now != nil {
			before.by = now.by // an equal value, perhaps of another input
		}
	}
	s.mu.Lock()
	if len(s.values) == 0 && len(events) > 0 {
		s.values = make(map[string]*held[T], len(events)) // the first load; a map that grows copies what it has, again and again
	}
	for _, e := range events {
		if now := next.values[e.Key]; now != nil {
			s.values[e.Key] = now
		} else {
			delete(s.values, e.Key)
		}
	}
	s.mu.Unlock()
	s.announce(events)
}

func (h *held[T]) pointer() *T {
	if h == nil {
		return nil
	}
	return &h.value
}

// change compares two values of a key, nil being none.
func (s *store[T]) change(k string, before, now *T) (e Event[T], changed bool) {
	e = Event[T]{Key: k, Old: before, New: now}
	switch {
	case before == now:
		return e, false
	case before == nil:
		e.Kind = Added
	case now == nil:
		e.Kind = Deleted
	case !s.equal(*before, *now):
		e.Kind = Updated
	default:
		return e, false
	}
	return e, true
}

// announce wakes whatever depends on changes that have been made. Callers hold graph.mu.
func (s *store[T]) announce(events []Event[T]) {
	if len(events) == 0 {
		return
	}
	slices.SortFunc(events, func(a, b Event[T]) int { return strings.Compare(a.Key, b.Key) })
	for _, update := range s.indexes {
		update(events)
	}
	s.invalidate(events)
	for _, feed := range s.downstream {
		feed(events)
	}
	if len(s.subs) > 0 {
		s.events = events
	}
}

func (s *store[T]) invalidate(events []Event[T]) {
	for _, e := range events {
		s.readers[e.Key].invalidate()
		for r, filters := range s.filters {
			if matchesAny(filters, e) {
				r.invalidate()
			}
		}
	}
}

func matchesAny[T any](filters []func(T) bool, e Event[T]) bool {
	for _, f := range filters {
		if f == nil || (e.Old != nil && f(*e.Old)) || (e.New != nil && f(*e.New)) {
			return true
		}
	}
	return false
}

func (s *store[T]) deliver() {
	events := s.events
	s.events = nil
	if len(events) == 0 {
		return
	}
	for _, sub := range slices.Clone(s.subs) {
		sub.fn(events)
	}
}
