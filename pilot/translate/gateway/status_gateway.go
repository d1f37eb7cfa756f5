package gateway

import (
	"fmt"
	"slices"

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

// GatewayStatus is the status of a Gateway; nil for a class that is not ours. The routes are all candidates.
func GatewayStatus(v View, gw *gatewayv1.Gateway, state GatewayState, routes Routes) *gatewayv1.GatewayStatus {
	if controllerOf(v, gw) == "" {
		return nil
	}
	out := &gatewayv1.GatewayStatus{Addresses: state.Addresses}
	counts := attachedRoutes(v, gw, append(routeObjects(routes.HTTP, routes.GRPC), connectionObjects(routes.TLS, routes.TCP)...))
	var refused []string
	for i := range gw.Spec.Listeners {
		l := &gw.Spec.Listeners[i]
		status, ok := listenerStatus(v, gw, i)
		if !ok {
			refused = append(refused, string(l.Name))
		}
		status.AttachedRoutes = counts[l.Name]
		out.Listeners = append(out.Listeners, status)
	}
	accepted := condition(string(gatewayv1.GatewayConditionAccepted), gw.Generation, nil, string(gatewayv1.GatewayReasonAccepted), "")
	accepted.Message = "the Gateway is taken care of"
	if len(refused) > 0 {
		// The Gateway itself is accepted while at least one listener works.
		accepted.Reason = string(gatewayv1.GatewayReasonListenersNotValid)
		accepted.Message = fmt.Sprintf("listeners that cannot be served: %v", refused)
		if len(refused) == len(gw.Spec.Listeners) {
			accepted.Status = metav1.ConditionFalse
		}
	}
	if state.Problem != "" {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, string(gatewayv1.GatewayReasonInvalidParameters), state.Problem
	}
	out.Conditions = []metav1.Condition{accepted, programmed(gw, state, accepted.Status == metav1.ConditionTrue)}
	return out
}

func programmed(gw *gatewayv1.Gateway, state GatewayState, accepted bool) metav1.Condition {
	kind := string(gatewayv1.GatewayConditionProgrammed)
	bad := func(reason gatewayv1.GatewayConditionReason, message string) metav1.Condition {
		return condition(kind, gw.Generation, []string{message}, "", string(reason))
	}
	switch {
	case state.Problem != "":
		return bad(gatewayv1.GatewayReasonInvalid, "the Gateway is not deployed as it asks to be")
	case !accepted:
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

// attachedRoutes counts the routes of each listener; one that names a listener twice counts once.
func attachedRoutes(v View, gw *gatewayv1.Gateway, objects []routeObject) map[gatewayv1.SectionName]int32 {
	out := map[gatewayv1.SectionName]int32{}
	for _, o := range objects {
		seen := map[gatewayv1.SectionName]bool{}
		for _, ref := range o.parents {
			if !refersTo(ref, o.meta.Namespace, gw) {
				continue
			}
			for _, l := range attach(v, gw, o, ref).listeners {
				if !seen[l.Name] {
					seen[l.Name] = true
					out[l.Name]++
				}
			}
		}
	}
	return out
}

// listenerStatus is all but the count of routes; ok is false for a listener that cannot be served.
func listenerStatus(v View, gw *gatewayv1.Gateway, i int) (gatewayv1.ListenerStatus, bool) {
	l := &gw.Spec.Listeners[i]
	out := gatewayv1.ListenerStatus{Name: l.Name, SupportedKinds: []gatewayv1.RouteGroupKind{}}
	group := gatewayv1.Group(groupGateway)
	var refusedKinds []string
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		for _, kind := range listenerKinds(l) {
			out.SupportedKinds = append(out.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(kind)})
		}
	} else {
		for _, k := range l.AllowedRoutes.Kinds {
			if (k.Group == nil || *k.Group == group) && slices.Contains(listenerKinds(l), string(k.Kind)) {
				out.SupportedKinds = append(out.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: k.Kind})
			} else {
				refusedKinds = append(refusedKinds, "routes of kind "+string(k.Kind)+" are not supported")
			}
		}
	}
	var refused []string
	reason := gatewayv1.ListenerReasonUnsupportedProtocol
	switch {
	case l.Protocol == hboneProtocol:
	case len(listenerKinds(l)) == 0:
		refused = []string{fmt.Sprintf("the protocol %s is not supported", l.Protocol)}
	case l.Hostname != nil && *l.Hostname != "" && !validHost(string(*l.Hostname)):
		refused, reason = []string{fmt.Sprintf("%q is no host name", *l.Hostname)}, gatewayv1.ListenerReasonUnsupportedValue
	}
	unresolved, unresolvedReason := refusedKinds, gatewayv1.ListenerReasonInvalidRouteKinds
	var unserved []string
	if len(refused) == 0 && terminates(l) {
		var settings []string
		unserved, settings, unresolvedReason = certificateStatus(v, gw, l, unresolvedReason)
		if refused = append(refused, settings...); len(settings) > 0 {
			reason = gatewayv1.ListenerReasonUnsupportedValue
		}
		unresolved = append(unresolved, unserved...)
	}
	conflict, conflictReason := listenerConflict(gw, i)
	ok := len(refused) == 0 && len(conflict) == 0 && len(unserved) == 0
	conflicted := condition(string(gatewayv1.ListenerConditionConflicted), gw.Generation, conflict, "", string(conflictReason))
	// This condition is good when it is False.
	conflicted.Status = metav1.ConditionTrue
	if len(conflict) == 0 {
		conflicted.Status, conflicted.Reason = metav1.ConditionFalse, string(gatewayv1.ListenerReasonNoConflicts)
	}
	out.Conditions = []metav1.Condition{
		condition(string(gatewayv1.ListenerConditionAccepted), gw.Generation, refused, string(gatewayv1.ListenerReasonAccepted), string(reason)),
		conflicted,
		condition(string(gatewayv1.ListenerConditionProgrammed), gw.Generation, slices.Concat(refused, conflict, unserved),
			string(gatewayv1.ListenerReasonProgrammed), string(gatewayv1.ListenerReasonInvalid)),
		condition(string(gatewayv1.ListenerConditionResolvedRefs), gw.Generation, unresolved,
			string(gatewayv1.ListenerReasonResolvedRefs), string(unresolvedReason)),
	}
	return out, ok
}

// certificateStatus is what is wrong with the references of a listener that ends TLS, with the reason (otherwise is the one when
// nothing is), and with its settings.
func certificateStatus(v View, gw *gatewayv1.Gateway, l *gatewayv1.Listener, otherwise gatewayv1.ListenerConditionReason) (
	refs, settings []string, reason gatewayv1.ListenerConditionReason,
) {
	tls := newListenerTLS(v, gw, l)
	switch {
	case tls.reason == gatewayv1.ListenerReasonUnsupportedValue:
		return nil, tls.unusable, otherwise
	case len(tls.unusable) > 0:
		return tls.unusable, nil, tls.reason
	}
	if missing, why := tls.missing(v, gw); len(missing) > 0 {
		return missing, nil, why
	}
	return nil, nil, otherwise
}

// listenerConflict looks for an earlier listener on the same port that this one cannot be told from.
func listenerConflict(gw *gatewayv1.Gateway, i int) ([]string, gatewayv1.ListenerConditionReason) {
	l := &gw.Spec.Listeners[i]
	host := func(h *gatewayv1.Hostname) string {
		if h == nil || *h == "" {
			return "*"
		}
		return string(*h)
	}
	for j := range i {
		o := &gw.Spec.Listeners[j]
		if o.Port != l.Port {
			continue
		}
		if o.Protocol != l.Protocol && !(bySNI(o) && bySNI(l)) {
			return []string{"listener " + string(o.Name) + " has the port for another protocol"}, gatewayv1.ListenerReasonProtocolConflict
		}
		if l.Protocol == gatewayv1.TCPProtocolType {
			return []string{"listener " + string(o.Name) + " has the same port"}, gatewayv1.ListenerReasonHostnameConflict
		}
		if host(o.Hostname) == host(l.Hostname) {
			return []string{"listener " + string(o.Name) + " has the same port and host name"}, gatewayv1.ListenerReasonHostnameConflict
		}
	}
	return nil, ""
}

// bySNI reports whether connections find a listener by their server name.
func bySNI(l *gatewayv1.Listener) bool {
	return l.Protocol == gatewayv1.TLSProtocolType || l.Protocol == gatewayv1.HTTPSProtocolType
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
		"GRPCRoute", "GRPCRouteNamedRouteRule", "Gateway", "GatewayFrontendClientCertificateValidation", "GatewayHTTPListenerIsolation", "GatewayPort8080",
		"HTTPRoute", "HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket", "HTTPRouteBackendRequestHeaderModification",
		"HTTPRouteBackendTimeout", "HTTPRouteCORS", "HTTPRouteDestinationPortMatching", "HTTPRouteHostRewrite",
		"HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule", "HTTPRouteParentRefPort", "HTTPRoutePathRedirect",
		"HTTPRoutePathRewrite", "HTTPRoutePortRedirect", "HTTPRouteQueryParamMatching", "HTTPRouteRequestMirror",
		"HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror", "HTTPRouteRequestTimeout",
		"HTTPRouteResponseHeaderModification", "HTTPRouteSchemeRedirect",
		"Mesh", "MeshClusterIPMatching", "MeshConsumerRoute", "MeshHTTPRouteBackendRequestHeaderModification",
		"MeshHTTPRouteNamedRouteRule", "MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteRedirectPort",
		"MeshHTTPRouteRewritePath", "MeshHTTPRouteSchemeRedirect", "ReferenceGrant", "TCPRoute", "TLSRoute", "TLSRouteModeMixed",
		"TLSRouteModeTerminate",
	}
}
