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

	// guarded by mu for readers; written only by the flush, which also holds graph.mu
	mu     sync.RWMutex
	values map[string]*T

	// guarded by graph.mu
	inDirty    bool
	events     []Event[T]                   // of this flush, until delivered
	downstream []func([]Event[T])           // collections made from this one
	indexes    []func([]Event[T])           // brought up to date with every commit
	readers    map[string]dependents        // fetched one key
	scanners   map[dependent][]func(T) bool // fetched with filters; a nil filter is everything
	subs       []*subscriber[T]             // in order of registration
}

type subscriber[T any] struct{ fn func([]Event[T]) }

// newStore must be called with graph.mu held.
func newStore[T any](g *Graph, name string, opts []Option) *store[T] {
	return &store[T]{
		graph:    g,
		name:     name,
		id:       g.adopt(),
		equal:    equalFunc[T](opts),
		values:   map[string]*T{},
		readers:  map[string]dependents{},
		scanners: map[dependent][]func(T) bool{},
	}
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
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v := s.values[key]; v != nil {
		return *v, true
	}
	var zero T
	return zero, false
}

func (s *store[T]) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.values)
}

func (s *store[T]) List() []T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]T, 0, len(s.values))
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		out = append(out, *s.values[k])
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
	events := make([]Event[T], 0, len(s.values))
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		events = append(events, Event[T]{Kind: Added, Key: k, New: s.values[k]})
	}
	return events
}

// commit applies new values (nil: gone), drops those that change nothing, and wakes whatever depends on the rest.
// Callers hold graph.mu.
func (s *store[T]) commit(next map[string]*T) {
	events := s.diff(next)
	if len(events) == 0 {
		return
	}
	s.mu.Lock()
	for _, e := range events {
		if e.New == nil {
			delete(s.values, e.Key)
		} else {
			s.values[e.Key] = e.New
		}
	}
	s.mu.Unlock()
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

func (s *store[T]) diff(next map[string]*T) []Event[T] {
	events := make([]Event[T], 0, len(next))
	for k, v := range next {
		old := s.values[k]
		switch {
		case old == nil && v == nil:
		case old == nil:
			events = append(events, Event[T]{Kind: Added, Key: k, New: v})
		case v == nil:
			events = append(events, Event[T]{Kind: Deleted, Key: k, Old: old})
		case !s.equal(*old, *v):
			events = append(events, Event[T]{Kind: Updated, Key: k, Old: old, New: v})
		}
	}
	slices.SortFunc(events, func(a, b Event[T]) int { return strings.Compare(a.Key, b.Key) })
	return events
}

func (s *store[T]) invalidate(events []Event[T]) {
	for _, e := range events {
		s.readers[e.Key].invalidate()
		for d, filters := range s.scanners {
			if matchesAny(filters, e) {
				d.invalidate()
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
