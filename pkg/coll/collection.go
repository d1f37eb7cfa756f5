package coll

import "context"

// Kind says what happened to a key.
type Kind uint8

// The kinds of Event.
const (
	Added   Kind = iota + 1 // New is set
	Updated                 // Old and New are set and not equal
	Deleted                 // Old is set
)

// String returns "added", "updated" or "deleted".
func (k Kind) String() string {
	switch k {
	case Added:
		return "added"
	case Updated:
		return "updated"
	case Deleted:
		return "deleted"
	}
	return "unknown"
}

// Event is the net change of one key over one flush. The values are shared: they must not be modified.
type Event[T any] struct {
	Kind     Kind
	Key      string
	Old, New *T
}

// Collection is a keyed set of values. Its values are shared and must not be modified.
// It can only be implemented by this package: every collection is part of a Graph.
type Collection[T any] interface {
	// Name is for people: logs, metrics, panics.
	Name() string
	// Get returns the value of a key. Inside a Map function use FetchOne instead, which is tracked.
	Get(key string) (T, bool)
	// List returns all values in the order of their keys.
	List() []T
	// Len returns the number of values.
	Len() int
	// Register calls fn with the current state as Added events (if there is any) before it returns, and from then on
	// with one batch of events per flush, ordered by key. fn runs while the graph is locked: it must be quick, may read any
	// collection (all of them are up to date) and may Stage writes, but must not call Set, Flush or Register.
	Register(fn func([]Event[T])) (unregister func())
	// HasSynced reports whether all that this collection is computed from has been marked as synced.
	HasSynced() bool
	// WaitSynced blocks until HasSynced, or returns the context's error.
	WaitSynced(ctx context.Context) error

	base() *store[T]
}

// Option changes how a collection is made.
type Option func(*options)

type options struct{ equal any }

// WithEqual replaces the comparison that decides whether a recomputed value is an event. The default is the value's own
// Equal method, proto.Equal for messages, and reflect.DeepEqual for the rest.
func WithEqual[T any](equal func(a, b T) bool) Option {
	return func(o *options) { o.equal = equal }
}
