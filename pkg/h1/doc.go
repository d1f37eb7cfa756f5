// Package h1 is HTTP/1.1 (RFC 9112) for a proxy: one connection at a time, either end, behind the interfaces of pkg/httpmsg.
//
// It is strict where laxness lets requests be smuggled past it: CL together with TE, repeated CL, line folding, bare CR or LF, and the like are refused. What concerns only one hop (connection,
// keep-alive, transfer-encoding, te, upgrade) is taken out of what comes in and made anew for what goes out.
//
// A connection costs one goroutine, and none on the client's side. Heads are parsed into reused memory over the read buffer: an
// exchange in the steady state allocates nothing.
package h1
