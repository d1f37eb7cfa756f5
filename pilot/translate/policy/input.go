package policy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	meshapi "istio.io/api/mesh/v1alpha1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// Proxy is the kind of proxy for which filters are made.
type Proxy int

// The kinds of proxies. They differ in where the peer's identity is found.
const (
	// Waypoint gets the client's identity from the tunnel, as filter state.
	Waypoint Proxy = iota
	// Gateway gets it from the client's certificate, if there is one.
	Gateway
)

// Input is what the filters of one filter chain are made from.
type Input struct {
	// Mesh gives trust domain and aliases. Nil is the default configuration.
	Mesh *meshapi.MeshConfig
	// Proxy is where the filters run.
	Proxy Proxy
	// Policies that are attached to the chain, in any order.
	Policies []*securityv1.AuthorizationPolicy
	// RequestAuthentications that are attached to the chain, in any order.
	RequestAuthentications []*securityv1.RequestAuthentication
	// JWKS returns the document of a source (see JWKSSources), and false while it has not been fetched: tokens that need it
	// are then refused. Nil is the same as always false.
	JWKS func(source string) (string, bool)
	// Authorizer finds the service of an external authorizer, [namespace/]host, as the proxy sees it. What CUSTOM policies would ask of
	// one that is not found is denied. Nil finds none.
	Authorizer FindService
	// ForwardClient is whether applications are told who their clients are; waypoints only.
	ForwardClient bool
}

// HTTPFilters returns the filters that authenticate and authorize requests: who the client is, if applications are told; ext_authz for
// CUSTOM, each after the rbac that says which requests it is for; jwt_authn; then rbac for AUDIT, DENY and ALLOW. There is none for
// what is not configured.
func HTTPFilters(in Input) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	if in.ForwardClient && in.Proxy == Waypoint {
		out = append(out, clientIdentity())
	}
	for _, c := range in.customs() {
		out = append(out, in.customHTTP(c)...)
	}
	if f := jwtFilter(in); f != nil {
		out = append(out, f)
	}
	for _, a := range actions() {
		if set := in.ruleSet(a, false); set != nil {
			out = append(out, set.httpFilter())
		}
	}
	return out
}

// NetworkFilters returns the filters that authorize TCP connections, to stand before the TCP proxy.
func NetworkFilters(in Input) []*listenerv3.Filter {
	var out []*listenerv3.Filter
	for _, c := range in.customs() {
		out = append(out, in.customNetwork(c)...)
	}
	for _, a := range actions() {
		if set := in.ruleSet(a, true); set != nil {
			out = append(out, set.networkFilter())
		}
	}
	return out
}
