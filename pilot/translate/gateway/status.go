package gateway

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// Conditions carry no transition time: the writer keeps the one of a condition that did not change.

// HTTPRouteStatus is the status of an HTTPRoute: one entry per parent that is ours.
func HTTPRouteStatus(v View, mesh Mesh, r *gatewayv1.HTTPRoute) gatewayv1.HTTPRouteStatus {
	return gatewayv1.HTTPRouteStatus{}
}

// GRPCRouteStatus is the status of a GRPCRoute.
func GRPCRouteStatus(v View, mesh Mesh, r *gatewayv1.GRPCRoute) gatewayv1.GRPCRouteStatus {
	return gatewayv1.GRPCRouteStatus{}
}

// GatewayState is what of a deployed Gateway its conditions depend on.
type GatewayState struct {
	// Addresses that it can be reached at; empty while there is none.
	Addresses []gatewayv1.GatewayStatusAddress
	// Ready is whether a pod of it runs; Reason says why not.
	Ready  bool
	Reason string
}

// GatewayStatus is the status of a Gateway; nil for a class that is not ours. The routes are all candidates.
func GatewayStatus(v View, gw *gatewayv1.Gateway, state GatewayState, https []*gatewayv1.HTTPRoute, grpcs []*gatewayv1.GRPCRoute) *gatewayv1.GatewayStatus {
	return nil
}

// GatewayClassStatus is the status of a GatewayClass; nil for one that is not ours.
func GatewayClassStatus(class *gatewayv1.GatewayClass) *gatewayv1.GatewayClassStatus { return nil }

// VirtualServiceStatus is the conditions of a VirtualService: Accepted, which is False and names the fields when a piece of it
// cannot be used. Problems are those that translations reported of it; what can be seen without a proxy is found here.
func VirtualServiceStatus(v View, mesh Mesh, vs *networkingv1.VirtualService, problems []route.Problem) []metav1.Condition {
	return nil
}

// ClassicGatewayStatus is the conditions of a classic Gateway.
func ClassicGatewayStatus(v View, gw *networkingv1.Gateway, problems []route.Problem) []metav1.Condition {
	return nil
}
