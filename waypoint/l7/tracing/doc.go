// Package tracing decides of a request whether it is traced and in which trace, and tells the next hop: what Envoy's connection manager
// and its tracers do to the head of a request. Spans are reported elsewhere.
package tracing
