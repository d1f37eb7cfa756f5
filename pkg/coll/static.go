package coll

import "sync"

// Static is a collection that is written: the door by which sources (informers, files, tests) feed a graph.
// All its methods may be called from any goroutine.
type Static[T any] struct {
	*store[T]
	key func(T) string // immutable

	// guarded by stageMu: writes that wait for a flush; the last one of a key counts
	stageMu sync.Mutex
	pending *writes[T]
	reset   bool // what is not in pending goes
	ready   bool
}

// NewStatic returns an empty collection whose keys are computed by key. It is not synced until MarkSynced.
func NewStatic[T any](g *Graph, name string, key func(T) string, opts ...Option) *Static[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &Static[T]{store: newStore[T](g, name, opts), key: key, pending: newWrites[T](0)}
	s.synced = func() bool {
		s.stageMu.Lock()
		defer s.stageMu.Unlock()
		return s.ready
	}
	return s
}

// Set adds or replaces values. When it returns, everything derived is up to date.
func (s *Static[T]) Set(values ...T) { s.Stage(values, nil); s.graph.Flush() }

// Delete removes keys; those unknown are ignored.
func (s *Static[T]) Delete(keys ...string) { s.Stage(nil, keys); s.graph.Flush() }

// Apply sets and deletes in one flush.
func (s *Static[T]) Apply(upserts []T, deletes []string) { s.Stage(upserts, deletes); s.graph.Flush() }

// Reset replaces the whole content; only what differs is an event.
func (s *Static[T]) Reset(values []T) {
	s.stageMu.Lock()
	s.pending, s.reset = newWrites[T](len(values)), true
	for _, v := range values {
		s.pending.put(s.key(v), &held[T]{value: v})
	}
	s.stageMu.Unlock()
	s.graph.stage(s)
	s.graph.Flush()
}

// Stage queues writes without applying them: changes to several collections become one batch when the Graph is flushed,
// and a subscriber may write back by it.
func (s *Static[T]) Stage(upserts []T, deletes []string) {
	s.stageMu.Lock()
	if len(s.pending.keys) == 0 {
		s.pending = newWrites[T](len(upserts) + len(deletes))
	}
	for _, k := range deletes {
		s.pending.put(k, nil)
	}
	for _, v := range upserts {
		s.pending.put(s.key(v), &held[T]{value: v})
	}
	s.stageMu.Unlock()
	s.graph.stage(s)
}

// MarkSynced says that the source has delivered its initial state. It cannot be taken back.
func (s *Static[T]) MarkSynced() {
	s.stageMu.Lock()
	s.ready = true
	s.stageMu.Unlock()
	s.graph.Flush()
}

func (s *Static[T]) process() {
	s.stageMu.Lock()
	next, reset := s.pending, s.reset
	s.pending, s.reset = newWrites[T](0), false
	s.stageMu.Unlock()
	if reset {
		for k := range s.values {
			if _, kept := next.values[k]; !kept {
				next.put(k, nil)
			}
		}
	}
	s.commit(next)
}
