// Package server serves xDS over gRPC: incremental and state-of-the-world, for any number of types.
//
// The protocol itself is pkg/xds/delta. This package adds streams, identity, metrics, and fan-out: Publish moves a table and
// wakes the streams it concerns, each of which sends, on its own goroutine, the newest state it lacks. A lone change leaves at
// once, and so does one that is made after the one before has arrived. Changes form a batch while a stream's previous write is in
// flight and, of those that concern many streams and keep coming whatever is done with them, for 23 ms at most (pace); requests never
// wait. A resource is encoded once, and streams at the same point share the whole encoded response but for its nonce.
//
// What is published with Publish is for everybody. What is published with PublishScope is for the clients of a scope, which Scopes
// chooses by node and peer; a scope exists while it has clients, and its clients wait for its first publication rather than take
// nothing for an empty configuration. Envoy's types go out in the order that never breaks a client: clusters, endpoints (also again,
// after a cluster that the client is told of anew), then, when the client has asked for the endpoints of new clusters, listeners and
// routes, and removals of clusters and endpoints last.
package server
