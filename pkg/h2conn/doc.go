// Package h2conn is HTTP/2 (RFC 9113, RFC 8441) for a proxy, either end of a connection, behind the interfaces of pkg/httpmsg. It
// speaks prior-knowledge HTTP/2 over any [net.Conn]: TLS and ALPN are done outside.
//
// One goroutine reads; it never writes, so that two peers that both push can't block each other. Writers combine: who finds the
// connection free writes what all others queue meanwhile.
package h2conn
