package gateway

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// KindListenerSet is how the Gateway API calls it.
const KindListenerSet = "ListenerSet"

// ListenerSetView is what it takes to know which ListenerSets are part of a Gateway.
type ListenerSetView interface {
	Namespace(name string) *corev1.Namespace
	// ListenerSets are those that name a Gateway as their parent, be they allowed or not, in any order.
	ListenerSets(gatewayNamespace, gatewayName string) []*gatewayv1.ListenerSet
}

// ListenerSetsAmong is a ListenerSetView of objects that are at hand.
type ListenerSetsAmong struct {
	Namespaces map[string]*corev1.Namespace
	Sets       []*gatewayv1.ListenerSet
}

// Namespace implements ListenerSetView.
func (a ListenerSetsAmong) Namespace(name string) *corev1.Namespace { return a.Namespaces[name] }

// ListenerSets implements ListenerSetView.
func (a ListenerSetsAmong) ListenerSets(gatewayNamespace, gatewayName string) []*gatewayv1.ListenerSet {
	var out []*gatewayv1.ListenerSet
	for _, set := range a.Sets {
		if namespace, name, ok := ListenerSetParent(set); ok && namespace == gatewayNamespace && name == gatewayName {
			out = append(out, set)
		}
	}
	return out
}

// ListenerSetParent is the Gateway that a ListenerSet names; ok is false when it names something else.
func ListenerSetParent(set *gatewayv1.ListenerSet) (namespace, name string, ok bool) {
	ref := set.Spec.ParentRef
	if ref.Group != nil && *ref.Group != groupGateway || ref.Kind != nil && *ref.Kind != kindGateway {
		return "", "", false
	}
	if namespace = set.Namespace; ref.Namespace != nil && *ref.Namespace != "" {
		namespace = string(*ref.Namespace)
	}
	return namespace, string(ref.Name), true
}

// ListenerSetAllowed says why a Gateway does not take a ListenerSet that names it; empty when it does. A waypoint has none but its own
// listener.
func ListenerSetAllowed(v ListenerSetView, gw *gatewayv1.Gateway, set *gatewayv1.ListenerSet) (problem string) {
	if slices.ContainsFunc(gw.Spec.Listeners, func(l gatewayv1.Listener) bool { return l.Protocol == hboneProtocol }) {
		return "the Gateway is a waypoint: what is sent to its services has no other listeners"
	}
	from := gatewayv1.NamespacesFromNone
	var selector *metav1.LabelSelector
	if allowed := gw.Spec.AllowedListeners; allowed != nil && allowed.Namespaces != nil {
		if allowed.Namespaces.From != nil {
			from = *allowed.Namespaces.From
		}
		selector = allowed.Namespaces.Selector
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return ""
	case gatewayv1.NamespacesFromSame:
		if set.Namespace == gw.Namespace {
			return ""
		}
	case gatewayv1.NamespacesFromSelector:
		ns := v.Namespace(set.Namespace)
		match, err := metav1.LabelSelectorAsSelector(selector)
		if err == nil && ns != nil && match.Matches(labels.Set(ns.Labels)) {
			return ""
		}
	case gatewayv1.NamespacesFromNone:
		return "the Gateway takes no ListenerSets: its spec.allowedListeners says so, or nothing"
	}
	return "spec.allowedListeners of the Gateway does not allow ListenerSets of this namespace"
}

// routeParent is what routes name to be served by a gateway: a Gateway, or a ListenerSet of one.
type routeParent struct {
	kind, namespace, name string
	generation            int64
	listeners             []*gatewayv1.Listener
}

func gatewayAsParent(gw *gatewayv1.Gateway) *routeParent {
	out := &routeParent{kind: kindGateway, namespace: gw.Namespace, name: gw.Name, generation: gw.Generation}
	for i := range gw.Spec.Listeners {
		out.listeners = append(out.listeners, &gw.Spec.Listeners[i])
	}
	return out
}

func setAsParent(set *gatewayv1.ListenerSet) *routeParent {
	out := &routeParent{kind: KindListenerSet, namespace: set.Namespace, name: set.Name, generation: set.Generation}
	for i := range set.Spec.Listeners {
		out.listeners = append(out.listeners, (*gatewayv1.Listener)(&set.Spec.Listeners[i]))
	}
	return out
}

// isSet tells the listeners of a ListenerSet from a Gateway's own.
func (p *routeParent) isSet() bool { return p.kind == KindListenerSet }

// namedBy reports whether a reference of a route names it.
func (p *routeParent) namedBy(ref gatewayv1.ParentReference, routeNamespace string) bool {
	namespace, kind := routeNamespace, gatewayv1.Kind(kindGateway)
	if ref.Namespace != nil && *ref.Namespace != "" {
		namespace = string(*ref.Namespace)
	}
	if ref.Kind != nil {
		kind = *ref.Kind
	}
	return (ref.Group == nil || *ref.Group == groupGateway) && string(kind) == p.kind && string(ref.Name) == p.name && namespace == p.namespace
}

// parentAt finds the Gateway of ours that a reference names, by itself or by a ListenerSet, and which of the two has the listeners that are
// meant. gw is nil when there is none; problem is why the Gateway does not take the ListenerSet.
func parentAt(v View, ref gatewayv1.ParentReference, routeNamespace string) (gw *gatewayv1.Gateway, of *routeParent, problem string) {
	namespace := routeNamespace
	if ref.Namespace != nil && *ref.Namespace != "" {
		namespace = string(*ref.Namespace)
	}
	if ref.Kind != nil && *ref.Kind == KindListenerSet {
		set := v.ListenerSet(namespace, string(ref.Name))
		if set == nil {
			return nil, nil, ""
		}
		if gw = gatewayOf(v, set); gw == nil {
			return nil, nil, ""
		}
		return gw, setAsParent(set), ListenerSetAllowed(v, gw, set)
	}
	if gw = v.Gateway(namespace, string(ref.Name)); gw == nil || controllerOf(v, gw) == "" {
		return nil, nil, ""
	}
	return gw, gatewayAsParent(gw), ""
}

// parents are a Gateway and those of its ListenerSets that it takes, in the order in which their listeners take precedence.
func parents(v ListenerSetView, gw *gatewayv1.Gateway) []*routeParent {
	out := []*routeParent{gatewayAsParent(gw)}
	sets := slices.Clone(v.ListenerSets(gw.Namespace, gw.Name))
	slices.SortFunc(sets, func(a, b *gatewayv1.ListenerSet) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for _, set := range sets {
		if ListenerSetAllowed(v, gw, set) == "" {
			out = append(out, setAsParent(set))
		}
	}
	return out
}

// SetListeners are the listeners that the ListenerSets of a Gateway add to it, by precedence: those that its Service needs ports for.
func SetListeners(v ListenerSetView, gw *gatewayv1.Gateway) []gatewayv1.Listener {
	var out []gatewayv1.Listener
	for _, m := range mergedListeners(v, gw) {
		if m.of.isSet() && len(m.refused) == 0 {
			out = append(out, *m.Listener)
		}
	}
	return out
}
