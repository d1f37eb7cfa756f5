// Package h2 is the HTTP/2 frame layer (RFC 9113) shared by the HBONE tunnel and the L7 engine: a strict
// frame reader, append-style frame writers, SETTINGS, flow-control windows, header blocks and the budgets
// that stop floods. It holds no stream state, starts no goroutine and takes no lock.
//
// Errors are either a [ConnError] (send GOAWAY, close) or a [StreamError] (send RST_STREAM, go on).
package h2
