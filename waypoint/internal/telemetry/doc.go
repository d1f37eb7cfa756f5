// Package telemetry counts what the proxy carries: the metrics of the mesh with their labels, and the engine's own counters under
// Envoy's names.
package telemetry
