// Package httpmsg is what an L7 proxy sees of HTTP, whatever its version: heads, bodies, and the two ends of an exchange.
// pkg/h1 and pkg/h2conn produce and consume it; nothing here does I/O.
package httpmsg
