// Package proxy serves the connections of one pod: three listeners in the pod's network namespace, and what goes
// through them.
//
//	15001  outbound, redirected      original destination -> l4.Decide -> tunnel or plain dial
//	15006  inbound plaintext         policy without an identity -> application
//	15008  inbound HBONE             mutual TLS, CONNECT -> l4.DecideInbound, policy -> application
//
// A Factory starts an Instance per pod. Everything fails closed: without a certificate, a known local workload or an
// allowing policy there is no connection, and a tunnel that cannot be made never becomes a plain connection.
package proxy
