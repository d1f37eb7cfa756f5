package registry

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// routed is the routes of one port.
type routed struct {
	key      string
	resource scoped
	uses     []destination
	problems []route.Problem
}

// forwarded is where connections to one port go.
type forwarded struct {
	key      string
	routes   []gateway.TCPRoute
	uses     []destination
	problems []route.Problem
}

// gatewayServers are the ports of a gateway and their routes.
type gatewayServers struct {
	proxy    proxy
	servers  []gateway.Server
	routes   []scoped
	uses     []destination
	problems []route.Problem
}

// uses collects the clusters that routes name.
type uses struct {
	proxy proxy
	// own is the service that the scope serves itself, nil for others: its clusters exist anyway.
	own      func(host string) *ambient.Service
	protocol string // http or tcp, what is routed
	list     []destination
}

// cluster implements gateway.ClusterName.
func (u *uses) cluster(host string, port uint32, subset string) string {
	if u.own != nil {
		if s := u.own(host); s != nil {
			return envoy.InboundVIP(port, ownProtocol(s, port, u.protocol), subset, host)
		}
	}
	d := destination{proxy: u.proxy, host: host, port: port, subset: subset}
	if !slices.ContainsFunc(u.list, func(have destination) bool { return have.name() == d.name() }) {
		u.list = append(u.list, d)
	}
	return envoy.Outbound(port, subset, host)
}

// ownProtocol is by which of its clusters a port of an own service is reached: by that for what is routed, unless the port is declared
// as something else.
func ownProtocol(s *ambient.Service, port uint32, routed string) string {
	for _, p := range s.Proto.Ports {
		if p.ServicePort != port {
			continue
		}
		switch declared := envoy.ProtocolOf(p.AppProtocol); {
		case !declared.HTTP():
			return "tcp"
		case !declared.TCP():
			return "http"
		}
	}
	return routed
}

// virtualServices are those that speak of a host.
func (r *Registry) virtualServices(f coll.Fetch, host, domain string) []*networkingv1.VirtualService {
	var out []*networkingv1.VirtualService
	for _, key := range hostKeys(host, domain) {
		for _, vs := range coll.FetchIndex(f, r.routing.byHost.virtualServices, key) {
			if !slices.Contains(out, vs) {
				out = append(out, vs)
			}
		}
	}
	return out
}

// portInput is what the routes of a port are made from.
func (r *Registry) portInput(f coll.Fetch, s servedPort, u *uses) gateway.WaypointInput {
	in := gateway.WaypointInput{
		Mesh: r.routeMesh(f), Namespace: s.proxy.namespace, Name: s.proxy.gateway,
		Service: routedService(s.service), Port: routedPort(s.service, s.at),
		ClusterName: u.cluster,
	}
	in.VirtualServices = r.virtualServices(f, s.host(), in.Mesh.Domain)
	for _, a := range coll.FetchIndex(f, r.routing.byHost.http, s.host()) {
		in.HTTPRoutes = append(in.HTTPRoutes, a.route)
	}
	for _, a := range coll.FetchIndex(f, r.routing.byHost.grpc, s.host()) {
		in.GRPCRoutes = append(in.GRPCRoutes, a.route)
	}
	for _, a := range coll.FetchIndex(f, r.routing.byHost.tls, s.host()) {
		in.TLSRoutes = append(in.TLSRoutes, a.route)
	}
	for _, a := range coll.FetchIndex(f, r.routing.byHost.tcp, s.host()) {
		in.TCPRoutes = append(in.TCPRoutes, a.route)
	}
	return in
}

// ownHosts are the hosts that a waypoint serves; nil for others, which serve none.
func (r *Registry) ownHosts(f coll.Fetch, p proxy) func(string) *ambient.Service {
	if p.kind != waypointScope {
		return nil
	}
	waypoint := p.namespace + "/" + p.gateway
	return func(host string) *ambient.Service {
		if s := r.service(f, host, p.client()); s != nil && slices.Contains(boundTo(s.Binding), waypoint) {
			return s
		}
		return nil
	}
}

func (r *Registry) deriveRoutes() {
	p := &r.proxies
	p.routes = coll.FlatMap("proxies/routes", p.ports, func(o routed) string { return o.key }, func(f coll.Fetch, s servedPort) []routed {
		if !s.protocol().HTTP() {
			return nil
		}
		u := &uses{proxy: s.proxy, own: r.ownHosts(f, s.proxy), protocol: "http"}
		config, problems := gateway.WaypointRoutes(r.viewOf(f, s.proxy), r.portInput(f, s, u))
		if config == nil {
			return nil
		}
		if s.proxy.kind == proxylessScope {
			var routes []*routev3.Route
			for _, vh := range config.GetVirtualHosts() {
				routes = append(routes, vh.GetRoutes()...)
			}
			config = envoy.ProxylessRoutes(s.host(), s.number(), routes)
		}
		return []routed{{s.key(), encodeScoped(s.proxy.key, RouteType, config.GetName(), config), u.list, problems}}
	}, coll.WithEqual(func(a, b routed) bool {
		return sameScoped(a.resource, b.resource) && sameUses(a.uses, b.uses) && slices.Equal(a.problems, b.problems)
	}))
	p.connections = coll.FlatMap("proxies/connections", p.ports, func(o forwarded) string { return o.key }, func(f coll.Fetch, s servedPort) []forwarded {
		if !s.protocol().TCP() || s.proxy.kind != waypointScope {
			return nil
		}
		u := &uses{proxy: s.proxy, own: r.ownHosts(f, s.proxy), protocol: "tcp"}
		routes, problems := gateway.WaypointTCP(r.viewOf(f, s.proxy), r.portInput(f, s, u))
		return []forwarded{{s.key(), routes, u.list, problems}}
	})
}

func sameUses(a, b []destination) bool {
	return slices.EqualFunc(a, b, func(a, b destination) bool { return a.name() == b.name() })
}

func (r *Registry) deriveGateways() {
	r.deriveRoutes()
	p := &r.proxies
	p.gateways = coll.FlatMap("proxies/gateways", p.active, func(g gatewayServers) string { return g.proxy.key }, func(f coll.Fetch, p proxy) []gatewayServers {
		if p.kind != routerScope {
			return nil
		}
		u := &uses{proxy: p, protocol: "http"}
		in := gateway.GatewayInput{
			Mesh: r.routeMesh(f), Namespace: p.namespace, K8s: p.gw, Classic: r.classicGateways(f, p.labels),
			TargetPort: r.targetPorts(f, p), ClusterName: u.cluster,
		}
		for _, gw := range in.Classic {
			in.VirtualServices = appendNew(in.VirtualServices, coll.FetchIndex(f, r.routing.byGateway.virtualServices, objectKey(gw)))
		}
		if p.gw != nil {
			routes := r.servedRoutes(f, p.gw)
			in.HTTPRoutes, in.GRPCRoutes, in.TLSRoutes, in.TCPRoutes = routes.HTTP, routes.GRPC, routes.TLS, routes.TCP
		}
		servers, configs, problems := gateway.GatewayConfig(r.viewOf(f, p), in)
		out := gatewayServers{proxy: p, servers: servers, uses: u.list, problems: problems}
		for _, c := range configs {
			out.routes = append(out.routes, encodeScoped(p.key, RouteType, c.GetName(), c))
		}
		return []gatewayServers{out}
	})
}

func appendNew[T comparable](to, more []T) []T {
	for _, o := range more {
		if !slices.Contains(to, o) {
			to = append(to, o)
		}
	}
	return to
}

// targetPorts finds the port of the pods for one of their Service: of those Services that select them.
func (r *Registry) targetPorts(f coll.Fetch, p proxy) func(uint32) uint32 {
	return func(port uint32) uint32 {
		for name, value := range p.labels {
			for _, s := range coll.FetchIndex(f, r.bySelector.services, labelKey(p.namespace, name, value)) {
				if target := selectedTarget(s, p.labels, port); target != 0 {
					return target
				}
			}
		}
		return 0
	}
}

func (r *Registry) deriveRouteResources() coll.Collection[scoped] {
	p := &r.proxies
	ports := coll.Map("xds/routes/ports", p.routes, scoped.key, func(_ coll.Fetch, o routed) (scoped, bool) { return o.resource, true }, coll.WithEqual(sameScoped))
	gateways := coll.FlatMap("xds/routes/gateways", p.gateways, scoped.key, func(_ coll.Fetch, g gatewayServers) []scoped { return g.routes }, coll.WithEqual(sameScoped))
	return coll.Join("xds/routes", ports, gateways)
}
