// Package hbone carries TCP connections as HTTP/2 CONNECT streams over mutual TLS: the tunnel protocol of
// the ambient mesh. It is an HTTP/2 endpoint for CONNECT only, on the frame codec of package h2.
//
// A server calls [ServeConn] for each accepted connection; a client takes streams from a [Pool]. A [Stream]
// is a net.Conn with half close that package netx can relay without copying.
package hbone
