// Package l7 is the pure core of the proxy: Envoy v3 resources become immutable tables, and a request becomes a decision. It does
// no I/O and knows no clock, no randomness and no goroutine but those that it is given.
//
// # Use
//
// Each resource is compiled on its own (CompileListener, CompileRoutes, CompileCluster, CompileEndpoints). What cannot be honoured is
// an error that begins with the path of the field: the caller NACKs with it and keeps the last good table. Tables are put together
// in a [Config], which is immutable: the With methods make the next one, a reader loads the current one once per request.
//
//	ch, ok := cfg.Chain("connect_terminate", &conn, l7.ProtocolUnknown) // ch.Terminate: HBONE; then for every CONNECT:
//	conn.Authority, conn.Destination = authority of the CONNECT
//	lst := cfg.InternalListener(ch.Terminate.Cluster)                  // "main_internal"
//	if cfg.NeedsSniff(lst, &conn) { sniffed = look at the first bytes }
//	ch, ok = cfg.Chain(lst, &conn, sniffed)
//	ch.HTTP != nil: for every request:
//	    req.Begin(head, &conn)
//	    var d l7.Decision
//	    cfg.Decide(&d, ch, &req, now, rnd)   // mutates head
//	    for d.Ask != nil { ask the authorizer; cfg.Resume(&d, &req, verdict, rnd) }
//	    wait d.Delay; answer d.Reply, or pick a host of d.Endpoints and forward head
//	    d.ApplyResponse(&req, head, info)         // mutates the head of the response
//	    d.LocalReply(&req, reply, info, &head)    // answers of ours: by the decision, or timeouts and the like of the caller
//	ch.TCP != nil: cfg.DecideTCP(ch, &conn, rnd)
//
// # Packages
//
// exchange is what is known of a connection and a request; match, normalize, mutate, rbac and jwt are what Envoy calls by these
// names, extauthz its ext_authz; strict refuses what none of them honours. The order of things is in Decide.
//
// # Ownership
//
// Everything reachable from a Config is read-only. A [Request] belongs to one exchange at a time; it owns the memory of the strings
// that Decide makes (a generated id, a rewritten path), which are valid until the next Begin. A mirror that outlives the exchange
// clones its head.
package l7
