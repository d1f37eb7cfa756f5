package gateway

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// judgedListeners are the statuses of the listeners of a Gateway, or of a ListenerSet, and what they come to.
type judgedListeners struct {
	statuses []gatewayv1.ListenerStatus
	// refused are the names of those that are not served; accepted and programmed are whether there is one that is.
	refused              []gatewayv1.SectionName
	accepted, programmed bool
}

// judgeListeners judges those of one parent, and counts the routes that are bound to them.
func judgeListeners(v View, gw *gatewayv1.Gateway, p mergedParent, objects []routeObject) judgedListeners {
	var out judgedListeners
	counts := attachedRoutes(v, p.routeParent, objects)
	for _, m := range p.merged {
		status := listenerStatus(v, gw, m)
		programs := meta.IsStatusConditionTrue(status.Conditions, string(gatewayv1.ListenerConditionProgrammed))
		if !programs {
			out.refused = append(out.refused, m.Name)
		}
		out.accepted = out.accepted || meta.IsStatusConditionTrue(status.Conditions, string(gatewayv1.ListenerConditionAccepted))
		out.programmed = out.programmed || programs
		status.AttachedRoutes = counts[m.Name]
		out.statuses = append(out.statuses, status)
	}
	return out
}

// attachedRoutes counts the routes of each listener; one that names a listener twice counts once.
func attachedRoutes(v View, of *routeParent, objects []routeObject) map[gatewayv1.SectionName]int32 {
	out := map[gatewayv1.SectionName]int32{}
	for _, o := range objects {
		seen := map[gatewayv1.SectionName]bool{}
		for _, ref := range o.parents {
			if !of.namedBy(ref, o.meta.Namespace) {
				continue
			}
			for _, l := range attach(v, of, o, ref).listeners {
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
func listenerStatus(v View, gw *gatewayv1.Gateway, m mergedListener) gatewayv1.ListenerStatus {
	kinds, refusedKinds := supportedKinds(m.Listener)
	out := gatewayv1.ListenerStatus{Name: m.Name, SupportedKinds: kinds}
	refused, reason := m.refused, m.reason
	unresolved, unresolvedReason := refusedKinds, gatewayv1.ListenerReasonInvalidRouteKinds
	var unserved []string
	if terminates(m.Listener) && (len(m.refused) == 0 || m.conflicted) {
		found := certificateStatus(v, gw, m)
		unserved = found.refs
		if len(found.refs) > 0 {
			unresolvedReason = found.reason
		}
		if len(refused) == 0 {
			refused, reason = found.refused, found.refusal
		}
		unresolved = append(unresolved, unserved...)
	}
	conflicted := metav1.Condition{
		Type: string(gatewayv1.ListenerConditionConflicted), Status: metav1.ConditionFalse, Reason: string(gatewayv1.ListenerReasonNoConflicts),
		ObservedGeneration: m.of.generation,
	}
	unprogrammed := gatewayv1.ListenerReasonInvalid
	if m.conflicted {
		conflicted = condition(conflicted.Type, m.of.generation, m.refused, "", string(m.reason))
		conflicted.Status = metav1.ConditionTrue // this condition is good when it is False
		if m.of.isSet() {
			unprogrammed = m.reason
		}
	}
	out.Conditions = []metav1.Condition{
		condition(string(gatewayv1.ListenerConditionAccepted), m.of.generation, refused, string(gatewayv1.ListenerReasonAccepted), string(reason)),
		conflicted,
		condition(string(gatewayv1.ListenerConditionProgrammed), m.of.generation, distinctTexts(refused, unserved),
			string(gatewayv1.ListenerReasonProgrammed), string(unprogrammed)),
		condition(string(gatewayv1.ListenerConditionResolvedRefs), m.of.generation, unresolved,
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
func certificateStatus(v View, gw *gatewayv1.Gateway, l mergedListener) (out certificates) {
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
