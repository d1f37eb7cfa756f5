// Package coll is a small set of reactive collections: keyed values that are either written (Static) or computed
// from other collections by pure functions (Map, FlatMap, Join, Singleton), kept up to date one change at a time.
//
// README.md teaches which form to use; the conformance suite in this package's tests is what every form promises.
//
// All collections belong to one Graph. A write stages a change and flushes the graph: the flush recomputes exactly
// what depends on the change, in one pass over the affected collections (sources before what is derived from them),
// and then hands every subscriber one batch of net events. When Set returns, everything derived is up to date.
package coll
