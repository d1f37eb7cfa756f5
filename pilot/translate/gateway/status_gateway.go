package gateway

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// hboneProtocol is the one of a waypoint's listener.
const hboneProtocol = "HBONE"

// GatewayState is what of a deployed Gateway its conditions depend on.
type GatewayState struct {
	// Addresses that it can be reached at; empty while there is none.
	Addresses []gatewayv1.GatewayStatusAddress
	// Ready is whether a pod of it runs; Reason says why not.
	Ready  bool
	Reason string
	// Problem is why it cannot be deployed as it asks to be.
	Problem string
}

// Routes are routes of the Gateway API.
type Routes struct {
	HTTP []*gatewayv1.HTTPRoute
	GRPC []*gatewayv1.GRPCRoute
	TLS  []*gatewayv1.TLSRoute
	TCP  []*gatewayv1.TCPRoute
}

// objects are all of them.
func (r Routes) objects() []routeObject {
	return append(routeObjects(r.HTTP, r.GRPC), connectionObjects(r.TLS, r.TCP)...)
}

// GatewayStatus is the status of a Gateway; nil for a class that is not ours. The routes are all candidates.
func GatewayStatus(v View, gw *gatewayv1.Gateway, state GatewayState, routes Routes) *gatewayv1.GatewayStatus {
	if controllerOf(v, gw) == "" {
		return nil
	}
	out := &gatewayv1.GatewayStatus{Addresses: state.Addresses}
	merged := merge(v, gw)
	own := judgeListeners(v, gw, merged[0], routes.objects())
	out.Listeners = own.statuses
	// The Gateway itself is accepted while at least one of its own listeners is, be it that its certificate is not there yet.
	none := len(gw.Spec.Listeners) == 0
	usable, served := none || own.accepted, none || own.programmed
	if n := acceptedSets(v, gw, merged[1:]); n > 0 && state.Problem == "" {
		out.AttachedListenerSets = &n
	}
	accepted := condition(string(gatewayv1.GatewayConditionAccepted), gw.Generation, nil, string(gatewayv1.GatewayReasonAccepted), "")
	accepted.Message = "the Gateway is taken care of"
	if len(own.refused) > 0 {
		accepted.Reason = string(gatewayv1.GatewayReasonListenersNotValid)
		accepted.Message = fmt.Sprintf("listeners that cannot be served: %v", own.refused)
		if !usable {
			accepted.Status = metav1.ConditionFalse
		}
	}
	if state.Problem != "" {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, string(gatewayv1.GatewayReasonInvalidParameters), state.Problem
	}
	out.Conditions = []metav1.Condition{accepted, programmed(gw, state, served)}
	return out
}

func programmed(gw *gatewayv1.Gateway, state GatewayState, served bool) metav1.Condition {
	kind := string(gatewayv1.GatewayConditionProgrammed)
	bad := func(reason gatewayv1.GatewayConditionReason, message string) metav1.Condition {
		return condition(kind, gw.Generation, []string{message}, "", string(reason))
	}
	switch {
	case state.Problem != "":
		return bad(gatewayv1.GatewayReasonInvalid, "the Gateway is not deployed as it asks to be")
	case !served:
		return bad(gatewayv1.GatewayReasonInvalid, "no listener can be served")
	case len(state.Addresses) == 0:
		return bad(gatewayv1.GatewayReasonAddressNotAssigned, "there is no address yet")
	case !state.Ready:
		message := state.Reason
		if message == "" {
			message = "no pod of the gateway is ready"
		}
		return bad(gatewayv1.GatewayReasonPending, message)
	}
	c := condition(kind, gw.Generation, nil, string(gatewayv1.GatewayReasonProgrammed), "")
	c.Message = "the Gateway serves"
	return c
}

// GatewayClassStatus is the status of a GatewayClass; nil for one that is not ours.
func GatewayClassStatus(class *gatewayv1.GatewayClass) *gatewayv1.GatewayClassStatus {
	if class.Spec.ControllerName != GatewayController && class.Spec.ControllerName != waypointController {
		return nil
	}
	accepted := condition(string(gatewayv1.GatewayClassConditionStatusAccepted), class.Generation, nil, string(gatewayv1.GatewayClassReasonAccepted), "")
	accepted.Message = "Gateways of this class are deployed"
	out := &gatewayv1.GatewayClassStatus{Conditions: []metav1.Condition{accepted}}
	for _, name := range supportedFeatures() {
		out.SupportedFeatures = append(out.SupportedFeatures, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(name)})
	}
	return out
}

// supportedFeatures are the names of the Gateway API's conformance features, in the order that the API demands.
func supportedFeatures() []string {
	return []string{
		"BackendTLSPolicy", "BackendTLSPolicySANValidation", "GRPCRoute", "GRPCRouteNamedRouteRule", "Gateway", "GatewayAddressEmpty", "GatewayFrontendClientCertificateValidation",
		"GatewayHTTPListenerIsolation", "GatewayInfrastructure", "GatewayPort8080", "HTTPRoute", "HTTPRoute303RedirectStatusCode",
		"HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode", "HTTPRouteBackendProtocolH2C",
		"HTTPRouteBackendProtocolWebSocket", "HTTPRouteBackendRequestHeaderModification", "HTTPRouteBackendTimeout", "HTTPRouteCORS",
		"HTTPRouteDestinationPortMatching", "HTTPRouteHostRewrite", "HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule",
		"HTTPRouteParentRefPort", "HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect",
		"HTTPRouteQueryParamMatching", "HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror",
		"HTTPRouteRequestTimeout", "HTTPRouteResponseHeaderModification", "HTTPRouteSchemeRedirect", "ListenerSet", "Mesh", "MeshClusterIPMatching",
		"MeshConsumerRoute", "MeshHTTPRouteBackendRequestHeaderModification", "MeshHTTPRouteNamedRouteRule",
		"MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteRedirectPort", "MeshHTTPRouteRewritePath",
		"MeshHTTPRouteSchemeRedirect", "ReferenceGrant", "TCPRoute", "TLSRoute", "TLSRouteModeMixed", "TLSRouteModeTerminate",
	}
}
