package analyzers

import (
	"fmt"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

func gatewayAPIAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "k8sgateway.ReferenceAnalyzer", Description: "Checks that what Gateways and routes of the Gateway API refer to is there, and allowed",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.IneffectivePolicy, analysis.BackendNotGranted, analysis.ListenerSetNotAllowed},
			Run:   apiReferences,
		},
		{
			Name: "k8sgateway.CRDVersionAnalyzer", Description: "Checks that the Gateway API CRDs serve a version that is read",
			Codes: []analysis.Code{analysis.UnsupportedGatewayAPIVersion, analysis.GatewayAPIBelowMinimum},
			Run:   crdVersions,
		},
	}
}

func apiReferences(s *analysis.Snapshot) (out analysis.Messages) {
	for r, gw := range analysis.All[*gatewayv1.Gateway](s) {
		class := string(gw.Spec.GatewayClassName)
		if _, _, ok := analysis.Find[*gatewayv1.GatewayClass](s, "", class); !ok && s.Known("GatewayClass") {
			out.Add(analysis.ReferencedResourceNotFound, r, "spec.gatewayClassName", "GatewayClass", class)
		}
		waypointListeners(s, &out, r, gw)
	}
	listenerSets(s, &out)
	for route := range apiRoutes(s) {
		for i, p := range route.parents {
			parent(s, &out, route, p, at("spec.parentRefs", i))
		}
		for _, b := range route.backends {
			backendOf(s, &out, route, b)
		}
	}
	return out
}

func parent(s *analysis.Snapshot, out *analysis.Messages, route apiRoute, p gatewayv1.ParentReference, field string) {
	kind, namespace := text(p.Kind, "Gateway"), text(p.Namespace, route.namespace)
	full := namespace + "/" + string(p.Name)
	if wanted, ok := parentGroups()[kind]; ok && parentGroup(p) != wanted {
		out.Add(analysis.IneffectivePolicy, route.r, field, fmt.Sprintf("there is no kind %s in group %q, so the route is attached to nothing; set group: %q", kind, parentGroup(p), wanted))
		return
	}
	if kind != "Gateway" && kind != gateway.KindListenerSet {
		if h, ok := parentHost(s, p, route.namespace); ok && h == nil && s.Known(kind) {
			out.Add(analysis.ReferencedResourceNotFound, route.r, field+".name", kind, full)
		} else if ok && h != nil && p.Port != nil && h.Port(uint32(*p.Port)) == nil {
			out.Add(analysis.ReferencedResourceNotFound, route.r, field+".port", "port of "+kind, fmt.Sprintf("%s:%d", full, *p.Port))
		}
		return
	}
	h, ok := findHolder(s, kind, namespace, string(p.Name))
	if !ok {
		if s.Known(kind) {
			out.Add(analysis.ReferencedResourceNotFound, route.r, field+".name", kind, full)
		}
		return
	}
	var meant []gatewayv1.Listener
	for _, l := range h.listeners {
		if (p.SectionName == nil || *p.SectionName == l.Name) && (p.Port == nil || *p.Port == l.Port) {
			meant = append(meant, l)
		}
	}
	if len(meant) == 0 {
		out.Add(analysis.ReferencedResourceNotFound, route.r, field, "listener of "+h.String(), text(p.SectionName, "any"))
		return
	}
	meant = slices.DeleteFunc(meant, func(l gatewayv1.Listener) bool { return !takes(s, h.namespace, l, route.namespace) })
	if len(meant) == 0 {
		out.Add(analysis.IneffectivePolicy, route.r, field, fmt.Sprintf("%s does not take routes of namespace %s; set allowedRoutes.namespaces of its listener", h, route.namespace))
		return
	}
	meant = slices.DeleteFunc(meant, func(l gatewayv1.Listener) bool { return !carries(l, route) })
	if len(meant) == 0 {
		out.Add(analysis.IneffectivePolicy, route.r, field, fmt.Sprintf("no listener of %s that is meant has a protocol for a %s, or allows that kind", h, route.r.Kind))
		return
	}
	if !slices.ContainsFunc(meant, func(l gatewayv1.Listener) bool { return sharesHost(l, route.hostnames) }) {
		out.Add(analysis.IneffectivePolicy, route.r, "spec.hostnames", fmt.Sprintf("none of the hostnames %v is one of a listener of %s", route.hostnames, h))
	}
}

// waypointListeners tells of listeners of waypoints that nobody opens: they take HBONE at port 15008, and nothing else.
func waypointListeners(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, gw *gatewayv1.Gateway) {
	if s.Waypoint(gw.Namespace+"/"+gw.Name) == nil {
		return
	}
	for i, l := range gw.Spec.Listeners {
		field, wrong := at("spec.listeners", i), ""
		switch {
		case l.Protocol != "HBONE":
			field, wrong = field+".protocol", fmt.Sprintf("protocol %s", l.Protocol)
		case l.Port != 15008:
			field, wrong = field+".port", fmt.Sprintf("port %d", l.Port)
		default:
			continue
		}
		out.Add(analysis.IneffectivePolicy, r, field, fmt.Sprintf("a waypoint takes protocol HBONE at port 15008 only, and a listener with %s has no effect", wrong))
	}
}

// parentGroups are the groups of the kinds that may be parents. A parent without a group is of the Gateway API, whatever its kind.
func parentGroups() map[string]string {
	return map[string]string{"Gateway": gatewayv1.GroupName, gateway.KindListenerSet: gatewayv1.GroupName, "Service": "", "ServiceEntry": "networking.istio.io"}
}

func parentGroup(p gatewayv1.ParentReference) string {
	if p.Group == nil {
		return gatewayv1.GroupName
	}
	return string(*p.Group)
}

// carries tells whether a listener is for routes of the kind.
func carries(l gatewayv1.Listener, route apiRoute) bool {
	if l.AllowedRoutes != nil && len(l.AllowedRoutes.Kinds) > 0 && !slices.ContainsFunc(l.AllowedRoutes.Kinds, func(k gatewayv1.RouteGroupKind) bool { return string(k.Kind) == route.r.Kind }) {
		return false
	}
	switch l.Protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType:
		return route.http
	case gatewayv1.TCPProtocolType:
		return route.r.Kind == "TCPRoute"
	case gatewayv1.UDPProtocolType:
		return route.r.Kind == "UDPRoute"
	case gatewayv1.TLSProtocolType:
		return route.r.Kind == "TLSRoute" || route.r.Kind == "TCPRoute"
	}
	return true
}

// sharesHost tells whether a listener and a route have a host name in common; without names it is all.
func sharesHost(l gatewayv1.Listener, names []gatewayv1.Hostname) bool {
	if l.Hostname == nil || *l.Hostname == "" || len(names) == 0 {
		return true
	}
	return slices.ContainsFunc(names, func(name gatewayv1.Hostname) bool { return hostsMeet(string(*l.Hostname), string(name)) })
}

func backendOf(s *analysis.Snapshot, out *analysis.Messages, route apiRoute, b backend) {
	kind, group := text(b.Kind, "Service"), text(b.Group, "")
	namespace, name := text(b.Namespace, route.namespace), string(b.Name)
	var h *analysis.Host
	switch {
	case kind == "Service" && group == "":
		h = s.Host(s.Ambient.Hostname(namespace, name), namespace)
	case kind == "Hostname":
		h, namespace = s.Host(name, route.namespace), route.namespace
	case kind == "ServiceEntry":
		h = entryHost(s, namespace, name)
	default:
		return
	}
	full := namespace + "/" + name
	if kind == "Hostname" {
		full = name
	}
	switch {
	case h == nil:
		if s.Known("Service") && s.Known("ServiceEntry") {
			out.Add(analysis.ReferencedResourceNotFound, route.r, b.field+".name", kind, full)
		}
	case b.Port != nil && len(h.Ports) > 0 && h.Port(uint32(*b.Port)) == nil:
		out.Add(analysis.ReferencedResourceNotFound, route.r, b.field+".port", "port of "+kind, fmt.Sprintf("%s:%d", full, *b.Port))
	}
	if namespace != route.namespace && s.Known("ReferenceGrant") && !granted(s, route, group, kind, namespace, name) {
		out.Add(analysis.BackendNotGranted, route.r, b.field+".namespace", kind, namespace, name, namespace, route.r.Kind, route.namespace)
	}
}

func entryHost(s *analysis.Snapshot, namespace, name string) *analysis.Host {
	se, _, ok := analysis.Find[*networkingv1.ServiceEntry](s, namespace, name)
	if !ok || len(se.Spec.GetHosts()) == 0 {
		return nil
	}
	return s.Host(se.Spec.GetHosts()[0], namespace)
}

// granted tells whether a ReferenceGrant allows a route to refer to an object of another namespace.
func granted(s *analysis.Snapshot, route apiRoute, group, kind, namespace, name string) bool {
	for _, g := range analysis.All[*gatewayv1.ReferenceGrant](s) {
		if g.Namespace != namespace {
			continue
		}
		from := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Kind) == route.r.Kind && string(f.Namespace) == route.namespace && string(f.Group) == route.r.GVK.Group
		})
		to := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Kind) == kind && string(t.Group) == group && (t.Name == nil || string(*t.Name) == name)
		})
		if from && to {
			return true
		}
	}
	return false
}

// crdVersions compares what is served with what is read.
func crdVersions(s *analysis.Snapshot) (out analysis.Messages) {
	for _, k := range kube.Kinds() {
		name := k.Resource + "." + k.GVK.Group
		crd, ok := s.CRDs[name]
		if !ok || slices.ContainsFunc(crd.Served, func(v string) bool { return slices.Contains(k.Versions, v) }) {
			continue
		}
		r := &analysis.Resource{Kind: "CustomResourceDefinition", Name: name}
		least := k.Versions[len(k.Versions)-1]
		served := "none"
		if len(crd.Served) > 0 {
			served = crd.Served[len(crd.Served)-1]
		}
		switch k.GVK.Kind {
		case "Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant":
			out.Add(analysis.UnsupportedGatewayAPIVersion, r, "", served, least)
		default:
			out.Add(analysis.GatewayAPIBelowMinimum, r, "", name, served, least)
		}
	}
	return out
}
