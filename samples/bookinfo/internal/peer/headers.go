// Package peer is how one Bookinfo service calls another: which request
// headers travel along, and an HTTP client made for demonstrating a mesh.
package peer

import (
	"net/http"
	"strings"
)

// propagated reports whether a request header must travel from the incoming to
// every outgoing request. A proxy emits spans by itself, but only the
// application can tie an outgoing request to the incoming one that caused it.
// name is in canonical form.
func propagated(name string) bool {
	switch name {
	case
		// Istio: one id through the whole call tree, used in access logs and for sampling.
		"X-Request-Id",
		// W3C Trace Context and Baggage.
		"Traceparent", "Tracestate", "Baggage",
		// Zipkin, single-header form; the X-B3- family is below.
		"B3",
		// Lightstep, Google Cloud, OpenCensus, SkyWalking.
		"X-Ot-Span-Context", "X-Cloud-Trace-Context", "Grpc-Trace-Bin", "Sw8",
		// Who asks: routing and authorisation of later hops depend on these.
		"User-Agent", "Cookie", "Authorization", "Jwt":
		return true
	}
	return strings.HasPrefix(name, "X-B3-") || strings.HasPrefix(name, "X-Datadog-")
}

// EndUser names the person that is signed in. The productpage sets it from its
// session; the services behind it pass it on.
const EndUser = "End-User"

// Propagate copies the headers that travel along. EndUser is not among them:
// a service that trusts its caller's adds it with PropagateEndUser, while the
// productpage, which faces browsers, must not.
func Propagate(in http.Header) http.Header {
	out := make(http.Header)
	for name, values := range in {
		if propagated(name) {
			out[name] = append([]string(nil), values...)
		}
	}
	return out
}

// PropagateEndUser is Propagate, and EndUser too.
func PropagateEndUser(in http.Header) http.Header {
	out := Propagate(in)
	if v := in.Values(EndUser); len(v) > 0 {
		out[EndUser] = append([]string(nil), v...)
	}
	return out
}
