package why

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// listenerSets are all of them, and the namespaces by whose labels Gateways take them.
func (m *Model) listenerSets() gateway.ListenerSetsAmong {
	out := gateway.ListenerSetsAmong{Namespaces: map[string]*corev1.Namespace{}, Sets: all[*gatewayv1.ListenerSet](m, gateway.KindListenerSet)}
	if len(out.Sets) > 0 {
		for _, ns := range all[*corev1.Namespace](m, "Namespace") {
			out.Namespaces[ns.Name] = ns
		}
	}
	return out
}

// listenersOf are the listeners of a Gateway, and those that its ListenerSets add.
func (m *Model) listenersOf(gw *gatewayv1.Gateway) []gatewayv1.Listener {
	return slices.Concat(gw.Spec.Listeners, gateway.SetListeners(m.listenerSets(), gw))
}

// GatewayOf is namespace/name of the Gateway that a parent of a route is, or that its ListenerSet names, be it taken or not; ok is false for
// any other parent.
func (m *Model) GatewayOf(ref gatewayv1.ParentReference, routeNamespace string) (key string, ok bool) {
	namespace, name := routeNamespace, string(ref.Name)
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	if ref.Group != nil && *ref.Group != gatewayv1.GroupName {
		return "", false
	}
	if ref.Kind != nil && *ref.Kind == gateway.KindListenerSet {
		set := object[*gatewayv1.ListenerSet](m, gateway.KindListenerSet, namespace, name)
		if set == nil {
			return "", false
		}
		if namespace, name, ok = gateway.ListenerSetParent(set); !ok {
			return "", false
		}
	} else if ref.Kind != nil && *ref.Kind != "Gateway" {
		return "", false
	}
	return namespace + "/" + name, true
}

// listenerSetFaults tells what is wrong with the ListenerSets that name the gateway.
func (s *station) listenerSetFaults(v Verdict) Verdict {
	m := s.w.m
	for _, set := range m.listenerSets().ListenerSets(s.proxy.Namespace, s.proxy.Gateway) {
		if f := m.faults(gateway.KindListenerSet, set.Namespace, set.Name); len(f) > 0 {
			v.Cause += fmt.Sprintf("; ListenerSet %s/%s: %s", set.Namespace, set.Name, describe(f))
			v = v.about(m.World.Of(set, "spec"))
		}
	}
	return v
}
