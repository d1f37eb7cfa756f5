// Package server serves xDS over gRPC: incremental for any number of types, and state-of-the-world for debug types and for
// clients that know nothing else.
//
// The protocol itself is pkg/xds/delta. This package adds streams, identity, metrics, and fan-out: Publish moves a table and
// wakes the streams it concerns, each of which sends, on its own goroutine, the newest state it lacks. Nothing waits for a
// timer: a lone change leaves at once, and changes form a batch only while a stream's previous write is in flight. A resource
// is encoded once, and streams at the same point share the whole encoded response but for its nonce.
package server
