// Package agent does for a real Envoy what the engine does for itself: it writes Envoy's bootstrap, passes Envoy's discovery stream
// on to the control plane with the proxy's credentials, and serves its certificates, renewed, on a Unix socket.
package agent
