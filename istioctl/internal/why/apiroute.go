package why

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Kinds of routes of the Gateway API.
const (
	kindHTTPRoute = "HTTPRoute"
	kindGRPCRoute = "GRPCRoute"
	kindTLSRoute  = "TLSRoute"
	kindTCPRoute  = "TCPRoute"
)

// apiRoute is a route of the Gateway API, of whatever kind.
type apiRoute struct {
	kube.Object
	kind      string
	parents   []gatewayv1.ParentReference
	hostnames []gatewayv1.Hostname
	// backends are those of the rules, of routes for connections.
	backends [][]gatewayv1.BackendRef
}

// forConnections is whether it is none for requests.
func (r apiRoute) forConnections() bool { return r.kind == kindTLSRoute || r.kind == kindTCPRoute }

func (r apiRoute) String() string { return r.kind + " " + r.GetNamespace() + "/" + r.GetName() }

// routes are all of them.
func (m *Model) routes() (out []apiRoute) {
	for _, r := range m.httpRoutes() {
		out = append(out, apiRoute{Object: r, kind: kindHTTPRoute, parents: r.Spec.ParentRefs, hostnames: r.Spec.Hostnames})
	}
	for _, r := range all[*gatewayv1.GRPCRoute](m, kindGRPCRoute) {
		out = append(out, apiRoute{Object: r, kind: kindGRPCRoute, parents: r.Spec.ParentRefs, hostnames: r.Spec.Hostnames})
	}
	for _, r := range all[*gatewayv1.TLSRoute](m, kindTLSRoute) {
		one := apiRoute{Object: r, kind: kindTLSRoute, parents: r.Spec.ParentRefs, hostnames: r.Spec.Hostnames}
		for _, rule := range r.Spec.Rules {
			one.backends = append(one.backends, rule.BackendRefs)
		}
		out = append(out, one)
	}
	for _, r := range all[*gatewayv1.TCPRoute](m, kindTCPRoute) {
		one := apiRoute{Object: r, kind: kindTCPRoute, parents: r.Spec.ParentRefs}
		for _, rule := range r.Spec.Rules {
			one.backends = append(one.backends, rule.BackendRefs)
		}
		out = append(out, one)
	}
	return out
}

// parentIs is whether a service is one of its parents.
func (r apiRoute) parentIs(s *ambient.Service) bool {
	return slices.ContainsFunc(r.parents, func(ref gatewayv1.ParentReference) bool {
		ns := r.GetNamespace()
		if ref.Namespace != nil {
			ns = string(*ref.Namespace)
		}
		return isService(ref) && ns == s.Proto.Namespace && string(ref.Name) == s.Proto.Name
	})
}

func isService(ref gatewayv1.ParentReference) bool {
	if ref.Kind == nil || ref.Group == nil {
		return false
	}
	return *ref.Kind == "Service" && *ref.Group == "" || *ref.Kind == "ServiceEntry" && *ref.Group == "networking.istio.io"
}

// parentField is the reference of a route to a service, or to a port that it does not have.
func (r apiRoute) parentField(same func(gatewayv1.ParentReference) bool) string {
	i := slices.IndexFunc(r.parents, same)
	if i < 0 {
		return ""
	}
	field := fmt.Sprintf("spec.parentRefs[%d]", i)
	if r.parents[i].Port != nil {
		field += ".port"
	}
	return field
}

// isParent is whether a parent of a route is the Gateway of the proxy, or a ListenerSet of it.
func (s *station) isParent(r apiRoute, p gatewayv1.ParentReference) bool {
	key, ok := s.w.m.GatewayOf(p, r.GetNamespace())
	return ok && key == s.proxy.Namespace+"/"+s.proxy.Gateway
}

// boundTo is whether the Gateway of the proxy, or a ListenerSet of it, is a parent of a route.
func (s *station) boundTo(r apiRoute) bool {
	return slices.ContainsFunc(r.parents, func(p gatewayv1.ParentReference) bool { return s.isParent(r, p) })
}

// connectionRef is the backend of a route for connections that a cluster stands for, and the route that the chain comes from.
func (s *station) connectionRef(chain *l7.Chain, cluster string) (ref *Ref, text string) {
	kind, ns, name, ok := envoy.OriginOf(chain.Told)
	if !ok {
		return nil, ""
	}
	w := s.w
	if kind == "VirtualService" {
		ref = s.tcpRule([]string{cluster}, ns+"/"+name)
		if ref == nil {
			return nil, ""
		}
		return ref, fmt.Sprintf("%s %s/%s, %s", kind, ns, name, strings.TrimPrefix(strings.TrimSuffix(ref.Field, ".destination"), "spec."))
	}
	for _, r := range w.m.routes() {
		if r.kind != kind || r.GetNamespace() != ns || r.GetName() != name {
			continue
		}
		field := "spec.rules[0].backendRefs[0]"
		if c := parseCluster(cluster); c.ok {
			for i, b := range slices.Concat(r.backends...) {
				if w.backendIs(r, b, c) && len(r.backends) > 0 && i < len(r.backends[0]) {
					field = fmt.Sprintf("spec.rules[0].backendRefs[%d]", i)
					break
				}
			}
		}
		return w.m.World.Of(r, field), r.String() + ", rules[0]"
	}
	return nil, ""
}

// backendIs is whether a reference of a route leads to a cluster.
func (w *walk) backendIs(r apiRoute, b gatewayv1.BackendRef, c clusterName) bool {
	ns := r.GetNamespace()
	if b.Namespace != nil {
		ns = string(*b.Namespace)
	}
	host := string(b.Name)
	if b.Kind == nil || *b.Kind == "Service" {
		host = w.m.Mesh.Settings().Hostname(ns, host)
	}
	return host == c.host && (b.Port == nil || uint32(*b.Port) == c.port)
}

// noBackend explains connections that a route for them leads nowhere.
func (s *station) noBackend(chain *l7.Chain, ref *Ref, v Verdict) Verdict {
	kind, ns, name, ok := envoy.OriginOf(chain.Told)
	if !ok || ref == nil {
		return v
	}
	v.Refs = append([]*Ref{ref}, v.Refs...)
	if kind != kindTLSRoute && kind != kindTCPRoute {
		return v
	}
	w := s.w
	switch f := w.m.faults(kind, ns, name); {
	case len(f) > 0:
		v.Cause = fmt.Sprintf("%s refuses the connection: %s %s/%s leads nowhere: %s", s.name, kind, ns, name, describe(f))
		v.Remedy = first(remedyOf(f), v.Remedy)
	case s.weightlessRoute(kind, ns, name):
		v.Cause = fmt.Sprintf("%s refuses the connection: all backends of %s %s/%s have the weight 0, so that nobody can take it", s.name, kind, ns, name)
		v.Remedy = "give one of them a weight above 0"
		v.Refs[0] = w.m.World.Ref(kind, ns, name, "spec.rules[0].backendRefs[0].weight")
	default:
		v.Cause = fmt.Sprintf("%s refuses the connection: %s %s/%s has no backend that can take it", s.name, kind, ns, name)
	}
	return v
}

func (s *station) weightlessRoute(kind, ns, name string) bool {
	for _, r := range s.w.m.routes() {
		if r.kind == kind && r.GetNamespace() == ns && r.GetName() == name && len(r.backends) > 0 {
			return len(r.backends[0]) > 0 && !slices.ContainsFunc(r.backends[0], func(b gatewayv1.BackendRef) bool { return b.Weight == nil || *b.Weight > 0 })
		}
	}
	return false
}

// connectionMisses explains a connection that no chain of a gateway takes, by the routes for connections that are meant for it.
func (s *station) connectionMisses(v Verdict, sni string, tls bool) Verdict {
	w := s.w
	for _, r := range w.m.routes() {
		if !r.forConnections() || !s.boundTo(r) {
			continue
		}
		at := r.parentField(func(p gatewayv1.ParentReference) bool { return s.isParent(r, p) })
		switch f := w.m.faults(r.kind, r.GetNamespace(), r.GetName()); {
		case len(f) > 0:
			v.Cause += fmt.Sprintf("; %s: %s", r, describe(f))
			v = v.about(w.m.World.Of(r, first(at, "spec")))
			if slices.ContainsFunc(f, func(c condition) bool { return c.Reason == string(gatewayv1.RouteReasonNotAllowedByListeners) }) {
				v.Remedy = "let the Gateway's listener take routes of this kind, of namespace " + r.GetNamespace() + " (allowedRoutes)"
			}
		case tls && r.kind == kindTLSRoute && !slices.ContainsFunc(r.hostnames, func(h gatewayv1.Hostname) bool { return overlap(string(h), sni) }):
			v.Cause += fmt.Sprintf("; %s is for %s", r, joinHosts(r.hostnames))
			v = v.about(w.m.World.Of(r, "spec.hostnames"))
		}
	}
	return v
}

func joinHosts(list []gatewayv1.Hostname) string {
	var out []string
	for _, h := range list {
		out = append(out, string(h))
	}
	return orNone(strings.Join(out, ", "), len(out) == 0)
}

// untakenRoutes tells of routes for connections to the service that do not count for this one.
func (w *walk) untakenRoutes(chain *l7.Chain, conn *l7.Conn) {
	if w.to == nil || w.to.service == nil || !w.waypoint {
		return
	}
	s := w.m.service(w.to.service)
	if s == nil {
		return
	}
	kind, ns, name, _ := envoy.OriginOf(chain.Told)
	for _, r := range w.m.routes() {
		if !r.forConnections() || !r.parentIs(s) || r.kind == kind && r.GetNamespace() == ns && r.GetName() == name {
			continue
		}
		switch {
		case len(w.m.faults(r.kind, r.GetNamespace(), r.GetName())) > 0: // said elsewhere
		case r.kind == kindTLSRoute && !conn.Hello:
			w.warn(w.m.World.Of(r, "spec.hostnames"), "name the server that TLS is for with --sni, if the client speaks TLS",
				"%s does not count: it is for TLS to %s, and no server name was asked for", r, joinHosts(r.hostnames))
		case r.kind == kindTLSRoute && !slices.ContainsFunc(r.hostnames, func(h gatewayv1.Hostname) bool { return overlap(string(h), conn.SNI) }):
			w.warn(w.m.World.Of(r, "spec.hostnames"), "ask for a name that it has (--sni), or add the name", "%s does not count: it is for %s, and not for %q", r, joinHosts(r.hostnames), conn.SNI)
		}
	}
}
