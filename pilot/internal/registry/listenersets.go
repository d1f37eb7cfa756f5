package registry

import (
	"reflect"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// addedListeners are those that the ListenerSets of a Gateway add to it; there is no such value for a Gateway without.
type addedListeners struct {
	gateway   string // namespace/name
	listeners []gatewayv1.Listener
}

// deriveAddedListeners is for who deploys Gateways.
func (r *Registry) deriveAddedListeners() {
	r.routing.added = coll.Map("listenerSets/added", r.gateways, func(a addedListeners) string { return a.gateway }, func(f coll.Fetch, gw *gatewayv1.Gateway) (addedListeners, bool) {
		a := addedListeners{objectKey(gw), gateway.SetListeners(r.view(f), gw)}
		return a, len(a.listeners) > 0
	}, coll.WithEqual(func(a, b addedListeners) bool { return reflect.DeepEqual(a.listeners, b.listeners) }))
}

// AddedListeners are those that the ListenerSets of a Gateway, namespace/name, add to it, by precedence.
func (r *Registry) AddedListeners(gateway string) []gatewayv1.Listener {
	a, _ := r.routing.added.Get(gateway)
	return slices.Clone(a.listeners)
}

// FollowAddedListeners calls changed with the names of Gateways, namespace/name, that AddedListeners says something else of, now and from
// now on, until stop is called. changed must be quick, and must not call back.
func (r *Registry) FollowAddedListeners(changed func(gateways []string)) (stop func()) {
	return r.routing.added.Register(func(events []coll.Event[addedListeners]) {
		keys := make([]string, 0, len(events))
		for _, e := range events {
			keys = append(keys, e.Key)
		}
		changed(keys)
	})
}

// listenerSetParents are the keys of the Gateway that a ListenerSet names.
func listenerSetParents(set *gatewayv1.ListenerSet) []string {
	if namespace, name, ok := gateway.ListenerSetParent(set); ok {
		return []string{namespace + "/" + name}
	}
	return nil
}

// servedRoutes are those of a Gateway and of the ListenerSets that it takes.
func (r *Registry) servedRoutes(f coll.Fetch, gw *gatewayv1.Gateway) gateway.Routes {
	out, v := r.routesOf(f, "Gateway", gw), r.view(f)
	for _, set := range v.ListenerSets(gw.Namespace, gw.Name) {
		if gateway.ListenerSetAllowed(v, gw, set) != "" {
			continue
		}
		more := r.routesOf(f, gateway.KindListenerSet, set)
		out.HTTP, out.GRPC = appendNew(out.HTTP, more.HTTP), appendNew(out.GRPC, more.GRPC)
		out.TLS, out.TCP = appendNew(out.TLS, more.TLS), appendNew(out.TCP, more.TCP)
	}
	return out
}

// routesOf are those whose parent is an object of the kind: a Gateway or a ListenerSet.
func (r *Registry) routesOf(f coll.Fetch, kind string, o kube.Object) gateway.Routes {
	x, key := &r.routing.byGateway, parentKey(kind, o.GetNamespace(), o.GetName())
	return gateway.Routes{
		HTTP: coll.FetchIndex(f, x.http, key), GRPC: coll.FetchIndex(f, x.grpc, key),
		TLS: coll.FetchIndex(f, x.tls, key), TCP: coll.FetchIndex(f, x.tcp, key),
	}
}

// listenerSetStatus is about the Gateway that it is part of, too.
func (r *Registry) listenerSetStatus(f coll.Fetch, o *gatewayv1.ListenerSet) (Status, bool) {
	namespace, name, ok := gateway.ListenerSetParent(o)
	v := r.view(f)
	gw := v.Gateway(namespace, name)
	if !ok || gw == nil {
		return Status{}, false
	}
	s := gateway.ListenerSetStatus(v, o, r.gatewayState(f, gw), r.routesOf(f, gateway.KindListenerSet, o))
	if s == nil {
		return Status{}, false
	}
	return newStatus(groupGateway, "v1", gateway.KindListenerSet, o, s)
}

// gatewayOfParent is the Gateway that serves what names the parent; nil when there is none.
func (r *Registry) gatewayOfParent(f coll.Fetch, ref gatewayv1.ParentReference, namespace string) *gatewayv1.Gateway {
	v := r.view(f)
	kind, namespace, name, ok := parentGateway(ref, namespace)
	if ok && kind == gateway.KindListenerSet {
		set := v.ListenerSet(namespace, name)
		if set == nil {
			return nil
		}
		if namespace, name, ok = gateway.ListenerSetParent(set); ok {
			if gw := v.Gateway(namespace, name); gw != nil && gateway.ListenerSetAllowed(v, gw, set) == "" {
				return gw
			}
		}
		return nil
	}
	if !ok {
		return nil
	}
	return v.Gateway(namespace, name)
}

// parentKey tells the parents of routes apart.
func parentKey(kind, namespace, name string) string { return kind + " " + namespace + "/" + name }

// parentGateways are the keys of the Gateways and ListenerSets that a route names.
func parentGateways(refs []gatewayv1.ParentReference, namespace string) (keys []string) {
	for _, ref := range refs {
		if kind, ns, name, ok := parentGateway(ref, namespace); ok {
			keys = append(keys, parentKey(kind, ns, name))
		}
	}
	return keys
}

// parentGateway is the Gateway or ListenerSet that a reference of an object of the namespace names; ok is false for something else.
func parentGateway(ref gatewayv1.ParentReference, own string) (kind, namespace, name string, ok bool) {
	kind, namespace = "Gateway", own
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	ok = (kind == "Gateway" || kind == gateway.KindListenerSet) && (ref.Group == nil || *ref.Group == groupGateway)
	return kind, namespace, string(ref.Name), ok
}
