package registry

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// unsupportedKind is a kind that is read only to say, in the status of each object, that it has no effect.
type unsupportedKind struct {
	group, version, kind string
	objects              *coll.Static[kube.Object]
}

func unsupportedKinds(r *Registry) []unsupportedKind {
	out := []unsupportedKind{
		{group: groupNetworking, version: "v1alpha3", kind: "EnvoyFilter"},
		{group: groupExtensions, version: "v1alpha1", kind: "WasmPlugin"},
		{group: groupGateway, version: "v1", kind: "UDPRoute"},
	}
	for i := range out {
		out[i].objects = source[kube.Object](r, out[i].group, out[i].kind)
	}
	return out
}

func (u unsupportedKind) statuses() coll.Collection[Status] {
	return statusOf("unsupported/"+u.kind, u.objects, func(_ coll.Fetch, o kube.Object) (Status, bool) {
		conditions := []metav1.Condition{newCondition(o, gateway.ConditionAccepted, false, reasonUnsupported, u.kind+" is not supported: the object has no effect")}
		if parents, ok := parentsOf(o); ok {
			return newStatus(u.group, u.version, u.kind, o, routeStatus(parents, conditions))
		}
		return fromConditions(u.group, u.version, u.kind, o, conditions)
	})
}

// parentsOf is for routes of the Gateway API, which have their conditions by parent.
func parentsOf(o kube.Object) (parents []gatewayv1.ParentReference, ok bool) {
	if route, is := o.(*gatewayv1.UDPRoute); is {
		return route.Spec.ParentRefs, true
	}
	return nil, false
}

func routeStatus(parents []gatewayv1.ParentReference, conditions []metav1.Condition) gatewayv1.RouteStatus {
	status := gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{}}
	for _, p := range parents {
		status.Parents = append(status.Parents, gatewayv1.RouteParentStatus{ParentRef: p, ControllerName: gateway.GatewayController, Conditions: conditions})
	}
	return status
}
