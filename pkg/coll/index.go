package coll

import (
	"slices"
	"strings"
	"sync"
)

// Index finds the values of a collection by something else than their key.
type Index[T any, K comparable] interface {
	// Lookup returns the values under k in the order of their primary keys. Inside a Map function use FetchIndex.
	Lookup(k K) []T

	index() *index[T, K]
}

// NewIndex indexes c by every key fn returns for a value; repeated keys count once. It is up to date whenever c is.
func NewIndex[T any, K comparable](c Collection[T], fn func(T) []K) Index[T, K] {
	s := c.base()
	s.graph.mu.Lock()
	defer s.graph.mu.Unlock()
	x := &index[T, K]{of: s, fn: fn, buckets: map[K][]indexed[T]{}, readers: map[K]*readers{}}
	x.update(s.snapshot())
	s.indexes = append(s.indexes, x.update)
	return x
}

type index[T any, K comparable] struct {
	// immutable
	of *store[T]
	fn func(T) []K

	// guarded by mu; written only by the flush
	mu      sync.RWMutex
	buckets map[K][]indexed[T] // sorted by primary key

	// guarded by Graph.mu
	readers map[K]*readers
}

type indexed[T any] struct {
	key   string
	value *T
}

func (x *index[T, K]) index() *index[T, K] { return x }

func (x *index[T, K]) Lookup(k K) []T {
	x.mu.RLock()
	defer x.mu.RUnlock()
	bucket := x.buckets[k]
	out := make([]T, len(bucket))
	for i, e := range bucket {
		out[i] = *e.value
	}
	return out
}

// update is called with every commit of the indexed collection, before anything derived is computed.
func (x *index[T, K]) update(events []Event[T]) {
	touched := map[K]struct{}{} // with readers
	touch := func(k K) {
		if len(x.readers) > 0 && x.readers[k] != nil {
			touched[k] = struct{}{}
		}
	}
	x.mu.Lock()
	for _, e := range events {
		if e.Old != nil {
			for _, k := range x.fn(*e.Old) {
				x.remove(k, e.Key)
				touch(k)
			}
		}
		if e.New != nil {
			for _, k := range x.fn(*e.New) {
				x.insert(k, indexed[T]{e.Key, e.New})
				touch(k)
			}
		}
	}
	x.mu.Unlock()
	for k := range touched {
		x.readers[k].invalidate()
	}
}

func (x *index[T, K]) find(k K, key string) (int, bool) {
	return slices.BinarySearchFunc(x.buckets[k], key, func(e indexed[T], key string) int { return strings.Compare(e.key, key) })
}

func (x *index[T, K]) insert(k K, e indexed[T]) {
	at, found := x.find(k, e.key)
	if found {
		x.buckets[k][at] = e
		return
	}
	x.buckets[k] = slices.Insert(x.buckets[k], at, e)
}

func (x *index[T, K]) remove(k K, key string) {
	at, found := x.find(k, key)
	if !found {
		return
	}
	if x.buckets[k] = slices.Delete(x.buckets[k], at, at+1); len(x.buckets[k]) == 0 {
		delete(x.buckets, k)
	}
}
