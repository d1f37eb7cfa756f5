// Package extauthz asks an authorizer outside of the proxy (Envoy's ext_authz): what is sent to it, and what its answer means. It does
// no I/O: whoever carries the request sends what a [Filter] asks, and reads the answer with it.
package extauthz
