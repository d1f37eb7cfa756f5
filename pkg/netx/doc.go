// Package netx makes sockets inside network namespaces and moves bytes between them.
//
// A [Network] is where a pod's sockets live: [NS] creates each one on a thread that entered the pod's
// namespace, with the options every mesh socket carries (mark, keepalive, no delay). [Relay] joins two
// half-closable streams until both directions ended, and costs an idle pair one goroutine and no buffer; with [Sleepers], a pair that is
// idle for long costs no goroutine.
package netx
