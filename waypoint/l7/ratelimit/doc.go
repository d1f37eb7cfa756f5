// Package ratelimit is Envoy's local rate limit of HTTP: token buckets for requests, chosen by descriptors.
//
// # Model
//
// Each rate_limits entry makes a descriptor of a request: pairs of key and value, one for each action that finds something. An action that
// finds nothing is skipped or, if it says so, ends the descriptor. A descriptor finds its bucket among the configured ones: by the exact
// values first, then by those with values left open, of which each combination of values has a bucket of its own, remembered until too many
// others have come. A request passes if all of its buckets have a token; the slowest is asked first. A request without a descriptor
// that is configured is for the default bucket.
//
// # Fair shares
//
// A rate_limits entry that begins with the generic key [FairKey] makes a descriptor that no configuration has, so that Envoy ignores it.
// Here it says how the bucket of another entry is divided: see share.go.
//
// # Ownership
//
// A [Filter] is immutable; what it counts is in its buckets, which are shared with the filter that it takes the place of where the
// limit is the same ([Filter.Adopt]). Buckets are atomic; tables of them are divided, each part with its own lock. Time is what the
// caller says.
package ratelimit
