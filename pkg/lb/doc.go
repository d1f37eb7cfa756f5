// Package lb chooses one of several hosts for a request. It does no I/O and knows no protocol.
//
// A [Set] is immutable: an update of the endpoints makes a new one. What lives longer than a Set, the number of open
// requests of a host, is in its [Host], which the new Set takes over from the old one. Picking allocates nothing.
//
// The rules are Envoy's: hosts that are not healthy are left out, unless so many are that the rest would not carry the load
// (panic); priorities spill over to the next as the health of one falls below what it can give with its reserve.
package lb
