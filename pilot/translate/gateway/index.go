package gateway

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// VirtualServiceHosts are the full host names that a VirtualService speaks of, wildcards among them.
func VirtualServiceHosts(mesh Mesh, vs *networkingv1.VirtualService) []string {
	out := make([]string, 0, len(vs.Spec.Hosts))
	for _, host := range vs.Spec.Hosts {
		out = append(out, mesh.FullHost(host, vs.Namespace))
	}
	return out
}

// ParentServices are the full host names of the services that a route names as its parents. namespace is the route's.
func ParentServices(v View, mesh Mesh, parents []gatewayv1.ParentReference, namespace string) []string {
	var out []string
	for _, ref := range parents {
		_, hosts := parentHosts(v, mesh, ref, namespace)
		out = append(out, hosts...)
	}
	return out
}
