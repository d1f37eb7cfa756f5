// Package client keeps an incremental xDS subscription alive: it connects, subscribes, hands what comes to the handlers,
// acknowledges or rejects it, and connects again whenever the connection ends. While the server is away the handlers keep
// what they have, and each new connection asks only for what changed meanwhile.
//
// The protocol is pkg/xds/delta's Client; this package adds gRPC, credentials, waiting and metrics.
package client
