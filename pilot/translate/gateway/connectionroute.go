package gateway

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// Kinds of routes of the Gateway API that are for connections.
const (
	kindTLSRoute = "TLSRoute"
	kindTCPRoute = "TCPRoute"
)

// connectionRule is a rule of a TLSRoute or a TCPRoute: neither has anything but backends.
type connectionRule struct {
	backends []gatewayv1.BackendRef
}

func tlsObject(r *gatewayv1.TLSRoute) routeObject {
	o := routeObject{kind: kindTLSRoute, meta: &r.ObjectMeta, parents: r.Spec.ParentRefs, hostnames: r.Spec.Hostnames}
	for _, rule := range r.Spec.Rules {
		o.connections = append(o.connections, connectionRule{rule.BackendRefs})
	}
	return o
}

func tcpObject(r *gatewayv1.TCPRoute) routeObject {
	o := routeObject{kind: kindTCPRoute, meta: &r.ObjectMeta, parents: r.Spec.ParentRefs}
	for _, rule := range r.Spec.Rules {
		o.connections = append(o.connections, connectionRule{rule.BackendRefs})
	}
	return o
}

// forConnections reports whether a route is for connections rather than for requests.
func (o routeObject) forConnections() bool { return o.kind == kindTLSRoute || o.kind == kindTCPRoute }

// connectionObjects gives both kinds, the oldest first; of the same age, those that look at names before those that take all.
func connectionObjects(tls []*gatewayv1.TLSRoute, tcp []*gatewayv1.TCPRoute) []routeObject {
	out := make([]routeObject, 0, len(tls)+len(tcp))
	for _, r := range tls {
		out = append(out, tlsObject(r))
	}
	for _, r := range tcp {
		out = append(out, tcpObject(r))
	}
	slices.SortStableFunc(out, func(a, b routeObject) int {
		return cmp.Or(older(a.meta, b.meta), strings.Compare(b.kind, a.kind))
	})
	return out
}

// connectionTargets says where a route sends connections: its first rule takes all of them. The share of backends that cannot be used
// is refused; without any that can, there are no targets, and all connections are refused.
func (t *translation) connectionTargets(o routeObject) []TCPTarget {
	rules := field.NewPath("spec", "rules")
	var out, refused []TCPTarget
	for i, rule := range o.connections {
		if i > 0 {
			t.problem(o.origin(), rules.Index(i), "never reached: the first rule takes all connections")
			continue
		}
		for j, ref := range rule.backends {
			to, ok := t.backend(o, rules.Index(i).Child("backendRefs").Index(j), ref.BackendObjectReference)
			weight := uint32(1)
			if ref.Weight != nil {
				weight = uint32(max(*ref.Weight, 0))
			}
			switch {
			case weight == 0:
			case ok:
				out = append(out, TCPTarget{Cluster: to.cluster, Weight: weight, TCPSettings: t.tcpSettings(to)})
			default:
				refused = append(refused, TCPTarget{Cluster: unknownCluster, Weight: weight})
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	// Those that can be used come first: what the first target says of connections holds for all.
	return append(out, refused...)
}

// attached reports whether a route is bound to a listener of the Gateway, or of one of its ListenerSets.
func (g *gatewayBuild) attached(o routeObject, l *listener) bool {
	return slices.ContainsFunc(o.parents, func(ref parentReference) bool {
		return l.of.namedBy(ref, o.meta.Namespace) && slices.Contains(attach(g.view, l.of, o, ref).listeners, l.api)
	})
}

// apiConnections are the chains of a listener of the Gateway API that forwards connections: one per route, by the server names that it
// has in common with the listener, or for all. Of several routes for the same connections the oldest counts.
func (g *gatewayBuild) apiConnections(l *listener, on []*listener) []ServerChain {
	g.port, g.also = l.number, nil
	taken := map[string]route.Origin{}
	var out []ServerChain
	for _, o := range g.connected {
		if !g.attached(o, l) {
			continue
		}
		hosts := []string{"*"}
		if l.protocol == TLS {
			hosts = routeHosts(l.api, o)
		}
		var names []string
		for _, host := range hosts {
			host = strings.ToLower(host)
			if l.protocol == TLS && closest(host, on) != l {
				continue
			}
			if by, ok := taken[host]; ok {
				g.problem(o.origin(), field.NewPath("spec"), "connections %sare taken by %s/%s already", forName(host), by.Namespace, by.Name)
				continue
			}
			taken[host] = o.origin()
			names = append(names, host)
		}
		if len(names) == 0 {
			continue
		}
		if slices.Contains(names, "*") {
			names = nil
		}
		r := TCPRoute{SNI: names, Targets: g.connectionTargets(o), Origin: o.origin()}
		out = append(out, ServerChain{SNI: names, TLS: l.terminated, Origin: l.origin, TCP: []TCPRoute{r}})
	}
	return out
}

// unrouted refuses connections for the host names of listeners that have no route: a listener with a wider name would take them.
func unrouted(on []*listener, taken map[string]*listener) []ServerChain {
	var out []ServerChain
	for _, l := range on {
		name := strings.ToLower(l.hosts[0].host)
		if l.api == nil || l.protocol != TLS || name == "*" || len(on) == 1 || taken[name] != nil {
			continue
		}
		taken[name] = l
		out = append(out, ServerChain{SNI: []string{name}, Origin: l.origin, TCP: []TCPRoute{{SNI: []string{name}, Origin: l.origin}}})
	}
	return out
}

// serviceConnections are the routes of connections whose parent is the service, of its own namespace: whose connections they are is not
// told apart. Of several for the same connections the oldest counts. found is whether there are any.
func (t *translation) serviceConnections(in WaypointInput) (out []TCPRoute, found bool) {
	taken := map[string]route.Origin{}
	for _, o := range connectionObjects(in.TLSRoutes, in.TCPRoutes) {
		if !t.parentOf(in, o) || o.meta.Namespace != in.Service.Namespace {
			continue
		}
		found = true
		hosts := []string{"*"}
		if len(o.hostnames) > 0 {
			hosts = nil
		}
		for _, h := range o.hostnames {
			if host := strings.ToLower(string(h)); validHost(host) && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
		var names []string
		for _, host := range hosts {
			if by, ok := taken[host]; ok {
				t.problem(o.origin(), field.NewPath("spec"), "connections %sto %s are taken by %s/%s already", forName(host), in.Service.Hostname, by.Namespace, by.Name)
				continue
			}
			taken[host] = o.origin()
			names = append(names, host)
		}
		if len(names) == 0 {
			continue
		}
		if slices.Contains(names, "*") {
			names = nil
		}
		out = append(out, TCPRoute{SNI: names, Targets: t.connectionTargets(o), Origin: o.origin()})
	}
	// What takes all comes last.
	slices.SortStableFunc(out, func(a, b TCPRoute) int {
		switch {
		case a.all() == b.all():
			return 0
		case a.all():
			return 1
		}
		return -1
	})
	return out, found
}

// TLSRouteStatus is the status of a TLSRoute: one entry per parent that is ours.
func TLSRouteStatus(v View, mesh Mesh, r *gatewayv1.TLSRoute) gatewayv1.TLSRouteStatus {
	return gatewayv1.TLSRouteStatus{RouteStatus: routeStatus(v, mesh, tlsObject(r))}
}

// TCPRouteStatus is the status of a TCPRoute.
func TCPRouteStatus(v View, mesh Mesh, r *gatewayv1.TCPRoute) gatewayv1.TCPRouteStatus {
	return gatewayv1.TCPRouteStatus{RouteStatus: routeStatus(v, mesh, tcpObject(r))}
}
