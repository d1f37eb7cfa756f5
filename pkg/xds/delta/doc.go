// Package delta is the incremental xDS protocol without a network: pure, synchronous state machines for both ends.
//
//   - Table holds the current resources of one type on the server, and what changed since any moment a stream is at.
//   - Subscription is one type on one server stream: Step takes a request or "the table has moved" and returns what to send.
//   - Client is the client's end of a stream with several types: Step takes what happened and returns what to do.
//
// Nothing here starts a goroutine, reads a clock or does I/O, and nothing is safe for concurrent use except Batch and Entry,
// which are immutable: whoever drives a state machine owns it. The drivers are pkg/xds/server and pkg/xds/client.
package delta
