package gateway

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// HTTPRouteTargets are the keys of the services that a route sends requests to, as TargetKey makes them: what to index by.
func HTTPRouteTargets(r *gatewayv1.HTTPRoute) []string { return httpObject(r).targets() }

// GRPCRouteTargets are those of a GRPCRoute.
func GRPCRouteTargets(r *gatewayv1.GRPCRoute) []string { return grpcObject(r).targets() }

// TLSRouteTargets are those of a TLSRoute.
func TLSRouteTargets(r *gatewayv1.TLSRoute) []string { return tlsObject(r).targets() }

// TCPRouteTargets are those of a TCPRoute.
func TCPRouteTargets(r *gatewayv1.TCPRoute) []string { return tcpObject(r).targets() }

func (o routeObject) targets() []string {
	var out []string
	add := func(ref gatewayv1.BackendObjectReference) {
		group, kind, namespace := "", kindService, o.meta.Namespace
		if ref.Group != nil {
			group = string(*ref.Group)
		}
		if ref.Kind != nil {
			kind = string(*ref.Kind)
		}
		if ref.Namespace != nil && *ref.Namespace != "" {
			namespace = string(*ref.Namespace)
		}
		if key := referenceKey(group, kind, namespace, string(ref.Name)); key != "" && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	mirrors := func(filters []gatewayv1.HTTPRouteFilter) {
		for _, f := range filters {
			if f.RequestMirror != nil {
				add(f.RequestMirror.BackendRef)
			}
		}
	}
	for _, rule := range o.http {
		mirrors(rule.Filters)
		for _, b := range rule.BackendRefs {
			add(b.BackendObjectReference)
			mirrors(b.Filters)
		}
	}
	for _, rule := range o.grpc {
		mirrors(httpFilters(rule.Filters))
		for _, b := range rule.BackendRefs {
			add(b.BackendObjectReference)
			mirrors(httpFilters(b.Filters))
		}
	}
	for _, rule := range o.connections {
		for _, b := range rule.backends {
			add(b.BackendObjectReference)
		}
	}
	return out
}
