package gateway

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// GatewayConfig translates all objects of one gateway. Servers are in the order of their ports.
func GatewayConfig(v View, in GatewayInput) ([]Server, []*routev3.RouteConfiguration, []route.Problem) {
	g := &gatewayBuild{
		translation: translation{view: v, mesh: in.Mesh, cluster: in.ClusterName, namespace: in.Namespace},
		in:          in, virtual: inOrder(in.VirtualServices, in.Mesh.DefaultExportTo, in.Namespace), objects: routeObjects(in.HTTPRoutes, in.GRPCRoutes),
		connected: connectionObjects(in.TLSRoutes, in.TCPRoutes),
	}
	var servers []Server
	var configs []*routev3.RouteConfiguration
	all := g.listeners(in)
	for i := 0; i < len(all); {
		n := i + 1
		for n < len(all) && all[n].bound == all[i].bound && all[n].bind == all[i].bind {
			n++
		}
		server, made := g.server(all[i:n])
		servers = append(servers, server)
		configs = append(configs, made...)
		i = n
	}
	return servers, configs, g.problems
}

// gatewayBuild is one run of GatewayConfig.
type gatewayBuild struct {
	translation
	in      GatewayInput
	virtual []*networkingv1.VirtualService
	objects []routeObject
	// connected are the routes of connections.
	connected []routeObject
}

// server builds what listens on one port.
func (g *gatewayBuild) server(on []*listener) (Server, []*routev3.RouteConfiguration) {
	first := on[0]
	out := Server{Bind: first.bind, Port: first.bound, Protocol: first.protocol}
	address := first.bind
	if address == "" {
		address = "0.0.0.0"
	}
	out.Name = address + "_" + strconv.FormatUint(uint64(first.bound), 10)
	if first.protocol == HTTP && first.terminated == nil {
		out.Chains = []ServerChain{{RouteName: first.routeName}}
		return out, []*routev3.RouteConfiguration{g.routeConfig(first.routeName, on)}
	}
	var configs []*routev3.RouteConfiguration
	taken := map[string]*listener{}
	for _, l := range on {
		switch {
		case l.protocol == HTTP:
		case l.api != nil:
			out.Chains = append(out.Chains, g.free(l, g.apiConnections(l, on), taken)...)
			continue
		default:
			out.Chains = append(out.Chains, g.free(l, g.connections(l), taken)...)
			continue
		}
		if names, ok := g.serverNames(l, taken); ok {
			out.Chains = append(out.Chains, ServerChain{TLS: l.terminated, Origin: l.origin, SNI: names, RouteName: l.routeName})
			configs = append(configs, g.routeConfig(l.routeName, []*listener{l}))
		}
	}
	out.Chains = append(out.Chains, unrouted(on, taken)...)
	return out, configs
}

// serverNames are those by which a server that ends TLS is found, but for those that an older one on its port has: two chains may not
// match the same connections. None is all.
func (g *gatewayBuild) serverNames(l *listener, taken map[string]*listener) (names []string, ok bool) {
	for _, h := range l.hosts {
		name := strings.ToLower(h.host)
		if by := taken[name]; by != nil {
			if by != l {
				g.problem(l.origin, l.path.Child("hosts"), "connections for %s to port %d are taken by %s/%s already", h.host, l.number, by.origin.Namespace, by.origin.Name)
			}
			continue
		}
		taken[name], ok = l, true
		names = append(names, name)
	}
	if slices.Contains(names, "*") {
		return nil, true
	}
	return names, ok
}

// free leaves the chains of forwarded connections that no older server takes.
func (g *gatewayBuild) free(l *listener, chains []ServerChain, taken map[string]*listener) []ServerChain {
	var out []ServerChain
	for _, c := range chains {
		if len(c.TCP[0].Destinations) > 0 {
			out = append(out, c)
			continue
		}
		names := c.SNI
		if len(names) == 0 {
			names = []string{"*"}
		}
		var left []string
		for _, name := range names {
			if by := taken[strings.ToLower(name)]; by != nil {
				g.problem(l.origin, l.path.Child("hosts"), "connections for %s to port %d are taken by %s/%s already", name, l.number, by.origin.Namespace, by.origin.Name)
				continue
			}
			taken[strings.ToLower(name)] = l
			left = append(left, name)
		}
		switch {
		case len(left) == 0:
			continue
		case left[0] == "*":
			left = nil
		}
		c.SNI = left
		out = append(out, c)
	}
	return out
}

// routeConfig builds the routes of the listeners that share a RouteConfiguration.
func (g *gatewayBuild) routeConfig(name string, on []*listener) *routev3.RouteConfiguration {
	g.port, g.also, g.tls = on[0].number, nil, on[0].terminated != nil
	hosts := newHostTable(on[0].number)
	for _, l := range on {
		if l.api != nil {
			g.apiHosts(hosts, l, on)
		}
	}
	for _, h := range hosts.all() {
		byPrecedence(h.Routes)
		h.Routes = reachable(h.Routes)
	}
	g.classicHosts(hosts, on)
	config := route.Config{Name: name, IgnorePort: true}
	for _, h := range hosts.all() {
		catchAllLast(h.Routes)
		config.Hosts = append(config.Hosts, *h)
	}
	if len(config.Hosts) == 0 {
		config.Hosts = []route.VirtualHost{{Name: "blackhole:" + strconv.FormatUint(uint64(on[0].number), 10), Domains: []string{"*"}}}
	}
	out, refused := config.Envoy()
	g.problems = append(g.problems, refused...)
	return out
}

// apiHosts adds the routes that are attached to a listener. A host name belongs to the listener whose own name is the closest.
func (g *gatewayBuild) apiHosts(hosts *hostTable, l *listener, on []*listener) {
	hosts.reserve(l.hosts[0].host, on)
	for _, o := range g.objects {
		if !g.attached(o, l) {
			continue
		}
		routes := g.apiRoutes(o, "")
		for _, host := range routeHosts(l.api, o) {
			if closest(host, on) == l {
				h := hosts.get(host)
				h.Routes = append(h.Routes, routes...)
			}
		}
	}
}

// closest is the listener that a host name belongs to among those of the Gateway API.
func closest(host string, on []*listener) *listener {
	var best *listener
	for _, l := range on {
		if l.api != nil && hostMatches(l.hosts[0].host, host) && (best == nil || narrower(l.hosts[0].host, best.hosts[0].host)) {
			best = l
		}
	}
	return best
}

// hostShare is a host name that a VirtualService gets: by which gateways and ports, which decides which of its matches count there.
type hostShare struct {
	of       *networkingv1.VirtualService
	host     string
	gateways []string
	ports    []uint32
}

// classicHosts adds the routes of VirtualServices: server by server, of each the oldest first.
func (g *gatewayBuild) classicHosts(hosts *hostTable, on []*listener) {
	for _, s := range g.hostShares(on) {
		h := hosts.get(s.host)
		g.port, g.also = s.ports[0], s.ports
		routes, _ := g.httpRoutes(s.of, s.gateways)
		h.Routes = append(h.Routes, routes...)
	}
	for _, l := range on {
		if l.gateway == "" || !l.redirect {
			continue
		}
		for _, host := range l.hosts {
			hosts.get(host.host).RequireTLS = true
		}
		for _, h := range hosts.all() {
			if slices.ContainsFunc(l.hosts, func(s serverHost) bool { return hostMatches(s.host, h.Domains[0]) }) {
				h.RequireTLS = true
			}
		}
	}
}

// hostShares are what VirtualServices have in common with servers, each where the first server gives it.
func (g *gatewayBuild) hostShares(on []*listener) []*hostShare {
	type key struct {
		of   *networkingv1.VirtualService
		host string
	}
	var out []*hostShare
	known := map[key]*hostShare{}
	visible := slices.DeleteFunc(slices.Clone(g.virtual), func(vs *networkingv1.VirtualService) bool { return !g.visible(vs) })
	for _, l := range on {
		if l.gateway == "" {
			continue
		}
		for _, vs := range visible {
			if !boundTo(vs, l.gateway) {
				continue
			}
			for _, host := range g.sharedHosts(vs, l) {
				s := known[key{vs, host}]
				if s == nil {
					s = &hostShare{of: vs, host: host}
					known[key{vs, host}] = s
					out = append(out, s)
				}
				s.gateways, s.ports = append(s.gateways, l.gateway), append(s.ports, l.number)
			}
		}
	}
	return out
}

func (g *gatewayBuild) visible(vs *networkingv1.VirtualService) bool {
	return exported(vs.Spec.ExportTo, g.mesh.DefaultExportTo, vs.Namespace, g.namespace)
}

// boundTo reports whether a VirtualService names the classic Gateway.
func boundTo(vs *networkingv1.VirtualService, gateway string) bool {
	return slices.ContainsFunc(vs.Spec.Gateways, func(name string) bool { return gatewayKey(name, vs.Namespace) == gateway })
}

// sharedHosts are the host names that a VirtualService and a server have in common.
func (g *gatewayBuild) sharedHosts(vs *networkingv1.VirtualService, l *listener) []string {
	var out []string
	for _, name := range VirtualServiceHosts(g.mesh, vs) {
		for _, s := range l.hosts {
			if s.namespace != "*" && s.namespace != vs.Namespace {
				continue
			}
			if host, ok := intersect(s.host, name); ok && validHost(host) && !slices.Contains(out, host) {
				out = append(out, host)
			}
		}
	}
	return out
}

// reachable are the routes of one author up to the first that takes every request. Those after it must not come into force by what
// catchAllLast does for the routes of others.
func reachable(routes []route.Route) []route.Route {
	if i := slices.IndexFunc(routes, func(r route.Route) bool { return r.Match.All() }); i >= 0 {
		return routes[:i+1]
	}
	return routes
}

// catchAllLast keeps the order but for routes that take every request, which would hide those after them.
func catchAllLast(routes []route.Route) {
	slices.SortStableFunc(routes, func(a, b route.Route) int {
		switch x, y := a.Match.All(), b.Match.All(); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
}
