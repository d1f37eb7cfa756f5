package gateway

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Controllers as routes and classes name them.
const (
	// GatewayController names us in the statuses of routes and gateways.
	GatewayController  = "istio.io/gateway-controller"
	waypointController = "istio.io/mesh-controller"
	gatewayClass       = "istio"
	waypointClass      = "istio-waypoint"
)

// HTTPRouteStatus is the status of an HTTPRoute: one entry per parent that is ours.
func HTTPRouteStatus(v View, mesh Mesh, r *gatewayv1.HTTPRoute) gatewayv1.HTTPRouteStatus {
	return gatewayv1.HTTPRouteStatus{RouteStatus: routeStatus(v, mesh, httpObject(r))}
}

// GRPCRouteStatus is the status of a GRPCRoute.
func GRPCRouteStatus(v View, mesh Mesh, r *gatewayv1.GRPCRoute) gatewayv1.GRPCRouteStatus {
	return gatewayv1.GRPCRouteStatus{RouteStatus: routeStatus(v, mesh, grpcObject(r))}
}

func routeStatus(v View, mesh Mesh, o routeObject) gatewayv1.RouteStatus {
	t := &translation{view: v, mesh: mesh, cluster: OutboundCluster, namespace: o.meta.Namespace}
	if o.forConnections() {
		t.connectionTargets(o)
	} else {
		t.apiRoutes(o, "")
	}
	var wrong, unresolved []string
	for _, p := range t.problems {
		wrong = append(wrong, p.Field+": "+p.Message)
	}
	reason := gatewayv1.RouteReasonResolvedRefs
	for i, u := range t.unresolved {
		if i == 0 {
			reason = u.reason
		}
		unresolved = append(unresolved, u.message)
	}
	// An empty list, not a missing one: the API demands the field.
	out := gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{}}
	for _, ref := range o.parents {
		bound, ours := t.judgeParent(o, ref)
		if !ours || slices.ContainsFunc(out.Parents, func(p gatewayv1.RouteParentStatus) bool { return sameParent(p.ParentRef, ref) }) {
			continue
		}
		accepted := condition(ConditionAccepted, o.meta.Generation, wrong, reasonAccepted, string(gatewayv1.RouteReasonUnsupportedValue))
		if bound.reason != gatewayv1.RouteReasonAccepted {
			accepted = condition(ConditionAccepted, o.meta.Generation, []string{bound.message}, "", string(bound.reason))
		}
		if accepted.Message == "" {
			accepted.Message = bound.message
		}
		out.Parents = append(out.Parents, gatewayv1.RouteParentStatus{
			ParentRef: ref, ControllerName: GatewayController,
			Conditions: []metav1.Condition{
				accepted,
				condition(ConditionResolvedRefs, o.meta.Generation, unresolved, string(gatewayv1.RouteReasonResolvedRefs), string(reason)),
			},
		})
	}
	return out
}

// judgeParent says whether a parent takes the route; ours is false for parents that are another controller's business.
func (t *translation) judgeParent(o routeObject, ref gatewayv1.ParentReference) (attachment, bool) {
	kind, hosts := parentHosts(t.view, t.mesh, ref, o.meta.Namespace)
	switch kind {
	case parentGateway, parentListenerSet:
		gw, of, problem := parentAt(t.view, ref, o.meta.Namespace)
		switch {
		case gw == nil:
			return attachment{}, false
		case problem != "":
			return attachment{reason: gatewayv1.RouteReasonNoMatchingParent, message: "the ListenerSet is part of no Gateway: " + problem}, true
		}
		return attach(t.view, of, o, ref), true
	case parentService:
		for _, host := range hosts {
			if svc := t.view.Service(host, o.meta.Namespace); svc != nil && hasPort(svc, ref) {
				return o.boundTo(svc, ref), true
			}
		}
		return attachment{reason: gatewayv1.RouteReasonNoMatchingParent, message: "there is no such service, or it has no such port"}, true
	case parentOther:
	}
	return attachment{}, false
}

// boundTo judges a service as a parent.
func (o routeObject) boundTo(svc *Service, ref gatewayv1.ParentReference) attachment {
	switch {
	case !o.forConnections():
	case o.meta.Namespace != svc.Namespace:
		return attachment{
			reason:  gatewayv1.RouteReasonNotAllowedByListeners,
			message: "a " + o.kind + " has to be in the namespace of the service: whose connections they are is not told apart",
		}
	case !slices.ContainsFunc(svc.Ports, func(p Port) bool { return named(p, ref) && !p.Protocol.IsHTTP() }):
		return attachment{
			reason:  gatewayv1.RouteReasonNotAllowedByListeners,
			message: "the ports of the service that are meant have requests, which an HTTPRoute or a GRPCRoute is for",
		}
	}
	return attachment{reason: gatewayv1.RouteReasonAccepted, message: "the route is bound"}
}

func hasPort(svc *Service, ref gatewayv1.ParentReference) bool {
	return slices.ContainsFunc(svc.Ports, func(p Port) bool { return named(p, ref) })
}

// named reports whether a parent reference means a port, as one without a port means all.
func named(p Port, ref gatewayv1.ParentReference) bool {
	return (ref.Port == nil || uint32(*ref.Port) == p.Number) &&
		(ref.SectionName == nil || *ref.SectionName == "" || string(*ref.SectionName) == p.Name)
}

func sameParent(a, b gatewayv1.ParentReference) bool {
	return same(a.Group, b.Group) && same(a.Kind, b.Kind) && same(a.Namespace, b.Namespace) && a.Name == b.Name &&
		same(a.SectionName, b.SectionName) && same(a.Port, b.Port)
}

func same[T comparable](a, b *T) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }

// controllerOf is the controller of a Gateway when it is one of ours. A class that nobody declared is known by its name.
func controllerOf(v View, gw *gatewayv1.Gateway) gatewayv1.GatewayController {
	class := v.GatewayClass(string(gw.Spec.GatewayClassName))
	switch {
	case class != nil && (class.Spec.ControllerName == GatewayController || class.Spec.ControllerName == waypointController):
		return class.Spec.ControllerName
	case class != nil:
		return ""
	case gw.Spec.GatewayClassName == gatewayClass:
		return GatewayController
	case gw.Spec.GatewayClassName == waypointClass:
		return waypointController
	}
	return ""
}
