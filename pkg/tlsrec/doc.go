// Package tlsrec is the record layer of TLS 1.3 for connections that carry bulk. crypto/tls shakes hands; then the traffic secrets
// are taken over, and records are sealed in batches, many to a system call, and opened in place, in the buffer they were read into.
//
// [Client] and [Server] return a connection. Where a handshake ends with something else than TLS 1.3 they return the *tls.Conn
// itself, so that a caller has one path. A [Conn] is a net.Conn; callers that can use memory which is not theirs read by
// [Conn.Next] and write by [Conn.WriteOwned], which spare a copy each.
//
// Where the kernel is able to, it seals what a Conn sends, once [Conn.SealInKernel] is called: then one pass over the data is saved, and
// network cards that seal can. What is received stays here, as a kernel has no notion of tickets. Connections move all the same.
//
// Keys never leave a Conn but through [Conn.Export], and to the kernel. Nothing here prints them: Conn and [State] redact themselves in every
// format, and they keep keys behind pointers that package fmt does not follow.
package tlsrec
