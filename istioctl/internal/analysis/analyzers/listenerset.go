package analyzers

import (
	"fmt"
	"iter"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// holder is an object that has listeners of the Gateway API: a Gateway, or a ListenerSet of one.
type holder struct {
	r               *analysis.Resource
	kind            string
	namespace, name string
	listeners       []gatewayv1.Listener
}

// String is for people.
func (h holder) String() string { return fmt.Sprintf("%s %s/%s", h.kind, h.namespace, h.name) }

// holders are all that there are.
func holders(s *analysis.Snapshot) iter.Seq[holder] {
	return func(yield func(holder) bool) {
		for r := range s.Everything() {
			if h, ok := asHolder(r); ok && !yield(h) {
				return
			}
		}
	}
}

func asHolder(r *analysis.Resource) (h holder, ok bool) {
	switch o := r.Object.(type) {
	case *gatewayv1.Gateway:
		return holder{r, "Gateway", o.Namespace, o.Name, o.Spec.Listeners}, true
	case *gatewayv1.ListenerSet:
		h = holder{r, gateway.KindListenerSet, o.Namespace, o.Name, nil}
		for _, l := range o.Spec.Listeners {
			h.listeners = append(h.listeners, gatewayv1.Listener(l))
		}
		return h, true
	}
	return holder{}, false
}

// findHolder is the Gateway or ListenerSet of a name.
func findHolder(s *analysis.Snapshot, kind, namespace, name string) (h holder, ok bool) {
	var r *analysis.Resource
	if kind == gateway.KindListenerSet {
		_, r, ok = analysis.Find[*gatewayv1.ListenerSet](s, namespace, name)
	} else {
		_, r, ok = analysis.Find[*gatewayv1.Gateway](s, namespace, name)
	}
	if !ok {
		return holder{}, false
	}
	return asHolder(r)
}

// listenerSets tells of ListenerSets whose Gateway is not there, or does not take them.
func listenerSets(s *analysis.Snapshot, out *analysis.Messages) {
	among := gateway.ListenerSetsAmong{Namespaces: map[string]*corev1.Namespace{}}
	for _, ns := range analysis.All[*corev1.Namespace](s) {
		among.Namespaces[ns.Name] = ns
	}
	for r, set := range analysis.All[*gatewayv1.ListenerSet](s) {
		namespace, name, ok := gateway.ListenerSetParent(set)
		if !ok {
			continue
		}
		gw, _, found := analysis.Find[*gatewayv1.Gateway](s, namespace, name)
		switch {
		case !found && s.Known("Gateway"):
			out.Add(analysis.ReferencedResourceNotFound, r, "spec.parentRef.name", "Gateway", namespace+"/"+name)
		case !found, among.Namespaces[set.Namespace] == nil && bySelector(gw): // of a namespace that is not there nothing is known
		default:
			if problem := gateway.ListenerSetAllowed(among, gw, set); problem != "" {
				out.Add(analysis.ListenerSetNotAllowed, r, "spec.parentRef", namespace+"/"+name, problem)
			}
		}
	}
}

// bySelector tells whether labels of namespaces decide which ListenerSets a Gateway takes.
func bySelector(gw *gatewayv1.Gateway) bool {
	in := gw.Spec.AllowedListeners
	return in != nil && in.Namespaces != nil && in.Namespaces.From != nil && *in.Namespaces.From == gatewayv1.NamespacesFromSelector
}
