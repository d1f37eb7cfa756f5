package gateway

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// parentKind says what a parent reference names.
type parentKind int

const (
	parentOther parentKind = iota
	parentGateway
	parentListenerSet
	parentService
)

// parentHosts gives the kind of a parent and, for a service, its full host names.
func parentHosts(v View, mesh Mesh, ref gatewayv1.ParentReference, routeNamespace string) (parentKind, []string) {
	group, kind, namespace := groupGateway, kindGateway, routeNamespace
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil && *ref.Namespace != "" {
		namespace = string(*ref.Namespace)
	}
	switch {
	case group == groupGateway && kind == kindGateway:
		return parentGateway, nil
	case group == groupGateway && kind == KindListenerSet:
		return parentListenerSet, nil
	case group == "" && kind == "Service":
		return parentService, []string{mesh.ServiceHost(string(ref.Name), namespace)}
	case group == groupNetworking && kind == "ServiceEntry":
		if entry := v.ServiceEntry(namespace, string(ref.Name)); entry != nil {
			return parentService, entry.Spec.Hosts
		}
		return parentService, nil
	}
	return parentOther, nil
}

// parentOf reports whether a route names the service port as its parent.
func (t *translation) parentOf(in WaypointInput, o routeObject) bool {
	return slices.ContainsFunc(o.parents, func(ref gatewayv1.ParentReference) bool {
		kind, hosts := parentHosts(t.view, t.mesh, ref, o.meta.Namespace)
		return kind == parentService && slices.Contains(hosts, in.Service.Hostname) &&
			(ref.Port == nil || uint32(*ref.Port) == in.Port.Number) &&
			(ref.SectionName == nil || *ref.SectionName == "" || string(*ref.SectionName) == in.Port.Name)
	})
}

// attachment is what came of a route that names a Gateway, or a ListenerSet, as its parent.
type attachment struct {
	// listeners that took it; none when it is not accepted.
	listeners []*gatewayv1.Listener
	reason    gatewayv1.RouteConditionReason
	message   string
}

// attach judges one reference to a parent: the listeners of a Gateway's ListenerSets are not its own.
func attach(v View, to *routeParent, o routeObject, ref gatewayv1.ParentReference) attachment {
	out := attachment{reason: gatewayv1.RouteReasonNoMatchingParent, message: "the " + to.kind + " has no such listener"}
	for _, l := range to.listeners {
		if ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.Name || ref.Port != nil && *ref.Port != l.Port {
			continue
		}
		switch {
		case !allowsKind(l, o.kind) || !allowsNamespace(v, to.namespace, l, o.meta.Namespace):
			if out.reason == gatewayv1.RouteReasonNoMatchingParent {
				out.reason, out.message = gatewayv1.RouteReasonNotAllowedByListeners, "no listener allows routes of this kind and namespace"
			}
		case len(routeHosts(l, o)) == 0:
			if len(out.listeners) == 0 {
				out.reason, out.message = gatewayv1.RouteReasonNoMatchingListenerHostname, "no listener has a host name that one of the route's matches"
			}
		default:
			out.listeners = append(out.listeners, l)
		}
	}
	if len(out.listeners) > 0 {
		out.reason, out.message = gatewayv1.RouteReasonAccepted, "the route is bound"
	}
	return out
}

// listenerKinds are the kinds of routes that a listener can take.
func listenerKinds(l *gatewayv1.Listener) []string {
	switch l.Protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType:
		return []string{kindHTTPRoute, kindGRPCRoute}
	case gatewayv1.TLSProtocolType:
		if terminates(l) {
			return []string{kindTLSRoute, kindTCPRoute}
		}
		return []string{kindTLSRoute}
	case gatewayv1.TCPProtocolType:
		return []string{kindTCPRoute}
	}
	return nil
}

func allowsKind(l *gatewayv1.Listener, kind string) bool {
	if !slices.Contains(listenerKinds(l), kind) {
		return false
	}
	return l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 ||
		slices.ContainsFunc(l.AllowedRoutes.Kinds, func(k gatewayv1.RouteGroupKind) bool {
			return string(k.Kind) == kind && (k.Group == nil || *k.Group == groupGateway)
		})
}

// allowsNamespace reports whether a listener of an object of the namespace own takes routes of another one.
func allowsNamespace(v View, own string, l *gatewayv1.Listener, namespace string) bool {
	from := gatewayv1.NamespacesFromSame
	var selector *metav1.LabelSelector
	if l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil {
		if l.AllowedRoutes.Namespaces.From != nil {
			from = *l.AllowedRoutes.Namespaces.From
		}
		selector = l.AllowedRoutes.Namespaces.Selector
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		ns := v.Namespace(namespace)
		match, err := metav1.LabelSelectorAsSelector(selector)
		return err == nil && ns != nil && match.Matches(labels.Set(ns.Labels))
	case gatewayv1.NamespacesFromSame:
		return namespace == own
	}
	return false
}

// routeHosts are the host names that a listener and a route have in common.
func routeHosts(l *gatewayv1.Listener, o routeObject) []string {
	listener := "*"
	if l.Hostname != nil && *l.Hostname != "" {
		listener = string(*l.Hostname)
	}
	if len(o.hostnames) == 0 {
		return []string{listener}
	}
	var out []string
	for _, h := range o.hostnames {
		if host, ok := intersect(listener, string(h)); ok && validHost(host) && !slices.Contains(out, host) {
			out = append(out, host)
		}
	}
	return out
}
