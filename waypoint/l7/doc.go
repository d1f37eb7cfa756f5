// Package l7 is the pure core of the proxy: Envoy v3 resources become immutable tables, and a request becomes a decision. It does
// no I/O and knows no clock, no randomness and no goroutine but those that it is given.
package l7
