package gateway

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
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
	usable, served := len(gw.Spec.Listeners) == 0, len(gw.Spec.Listeners) == 0
	for i := range gw.Spec.Listeners {
		l := &gw.Spec.Listeners[i]
		status := listenerStatus(v, gw, i)
		programs := meta.IsStatusConditionTrue(status.Conditions, string(gatewayv1.ListenerConditionProgrammed))
		if !programs {
			refused = append(refused, string(l.Name))
		}
		usable = usable || meta.IsStatusConditionTrue(status.Conditions, string(gatewayv1.ListenerConditionAccepted))
		served = served || programs
		status.AttachedRoutes = counts[l.Name]
		out.Listeners = append(out.Listeners, status)
	}
	accepted := condition(string(gatewayv1.GatewayConditionAccepted), gw.Generation, nil, string(gatewayv1.GatewayReasonAccepted), "")
	accepted.Message = "the Gateway is taken care of"
	if len(refused) > 0 {
		// The Gateway itself is accepted while at least one listener is, be it that its certificate is not there yet.
		accepted.Reason = string(gatewayv1.GatewayReasonListenersNotValid)
		accepted.Message = fmt.Sprintf("listeners that cannot be served: %v", refused)
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

// listenerStatus is all but the count of routes.
func listenerStatus(v View, gw *gatewayv1.Gateway, i int) gatewayv1.ListenerStatus {
	l := &gw.Spec.Listeners[i]
	kinds, refusedKinds := supportedKinds(l)
	out := gatewayv1.ListenerStatus{Name: l.Name, SupportedKinds: kinds}
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
		found := certificateStatus(v, gw, l)
		unserved = found.refs
		if len(found.refs) > 0 {
			unresolvedReason = found.reason
		}
		if refused = append(refused, found.refused...); len(refused) > 0 {
			reason = found.refusal
		}
		unresolved = append(unresolved, unserved...)
	}
	conflict, conflictReason := listenerConflict(gw, i)
	if len(refused) == 0 && len(conflict) > 0 {
		refused, reason = conflict, conflictReason
	}
	conflicted := condition(string(gatewayv1.ListenerConditionConflicted), gw.Generation, conflict, "", string(conflictReason))
	// This condition is good when it is False.
	conflicted.Status = metav1.ConditionTrue
	if len(conflict) == 0 {
		conflicted.Status, conflicted.Reason = metav1.ConditionFalse, string(gatewayv1.ListenerReasonNoConflicts)
	}
	out.Conditions = []metav1.Condition{
		condition(string(gatewayv1.ListenerConditionAccepted), gw.Generation, refused, string(gatewayv1.ListenerReasonAccepted), string(reason)),
		conflicted,
		condition(string(gatewayv1.ListenerConditionProgrammed), gw.Generation, distinctTexts(refused, conflict, unserved),
			string(gatewayv1.ListenerReasonProgrammed), string(gatewayv1.ListenerReasonInvalid)),
		condition(string(gatewayv1.ListenerConditionResolvedRefs), gw.Generation, unresolved,
			string(gatewayv1.ListenerReasonResolvedRefs), string(unresolvedReason)),
	}
	return out
}

// supportedKinds are the kinds of routes that a listener takes of those that it allows; refused says what is wrong with the others.
func supportedKinds(l *gatewayv1.Listener) (kinds []gatewayv1.RouteGroupKind, refused []string) {
	group := gatewayv1.Group(groupGateway)
	kinds = []gatewayv1.RouteGroupKind{}
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		for _, kind := range listenerKinds(l) {
			kinds = append(kinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(kind)})
		}
		return kinds, nil
	}
	for _, k := range l.AllowedRoutes.Kinds {
		if (k.Group == nil || *k.Group == group) && slices.Contains(listenerKinds(l), string(k.Kind)) {
			kinds = append(kinds, gatewayv1.RouteGroupKind{Group: &group, Kind: k.Kind})
		} else {
			refused = append(refused, "routes of kind "+string(k.Kind)+" are not supported")
		}
	}
	return kinds, refused
}

func distinctTexts(lists ...[]string) []string {
	var out []string
	for _, text := range slices.Concat(lists...) {
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// certificates is what is wrong with the TLS of a listener: references, with the reason, and what keeps it from being accepted at all,
// with that reason.
type certificates struct {
	refs    []string
	reason  gatewayv1.ListenerConditionReason
	refused []string
	refusal gatewayv1.ListenerConditionReason
}

// certificateStatus judges the TLS of a listener that ends it.
func certificateStatus(v View, gw *gatewayv1.Gateway, l *gatewayv1.Listener) (out certificates) {
	tls := newListenerTLS(v, gw, l)
	switch {
	case tls.reason == gatewayv1.ListenerReasonUnsupportedValue:
		return certificates{refused: tls.unusable, refusal: tls.reason}
	case len(tls.unusable) > 0:
		out.refs, out.reason = tls.unusable, tls.reason
	default:
		out.refs, out.reason = tls.missing(v, gw)
	}
	if tls.clients != "" || out.reason == gatewayv1.ListenerReasonInvalidCACertificateRef {
		// A listener that cannot verify its clients is none.
		if tls.clients != "" {
			out.reason = tls.clients
		}
		out.refused, out.refusal = []string{"nobody is known who signs the certificates of clients"}, gatewayv1.ListenerReasonNoValidCACertificate
	}
	return out
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
		"BackendTLSPolicy", "BackendTLSPolicySANValidation", "GRPCRoute", "GRPCRouteNamedRouteRule", "Gateway", "GatewayAddressEmpty", "GatewayFrontendClientCertificateValidation",
		"GatewayHTTPListenerIsolation", "GatewayInfrastructure", "GatewayPort8080", "HTTPRoute", "HTTPRoute303RedirectStatusCode",
		"HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode", "HTTPRouteBackendProtocolH2C",
		"HTTPRouteBackendProtocolWebSocket", "HTTPRouteBackendRequestHeaderModification", "HTTPRouteBackendTimeout", "HTTPRouteCORS",
		"HTTPRouteDestinationPortMatching", "HTTPRouteHostRewrite", "HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule",
		"HTTPRouteParentRefPort", "HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect",
		"HTTPRouteQueryParamMatching", "HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror",
		"HTTPRouteRequestTimeout", "HTTPRouteResponseHeaderModification", "HTTPRouteSchemeRedirect", "Mesh", "MeshClusterIPMatching",
		"MeshConsumerRoute", "MeshHTTPRouteBackendRequestHeaderModification", "MeshHTTPRouteNamedRouteRule",
		"MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteRedirectPort", "MeshHTTPRouteRewritePath",
		"MeshHTTPRouteSchemeRedirect", "ReferenceGrant", "TCPRoute", "TLSRoute", "TLSRouteModeMixed", "TLSRouteModeTerminate",
	}
}
