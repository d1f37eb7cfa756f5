// Package export sends what the proxy tells of its work (spans, log records) to collectors, in batches. What waits is bounded: what a
// collector does not take in time is dropped and counted, and no request ever waits for it.
package export
