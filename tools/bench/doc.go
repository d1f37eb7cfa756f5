// Package bench is what the benchmarks share: the report that gates read, gRPC messages that are not decoded, and the echo that is
// the unit of control-plane latencies.
package bench
