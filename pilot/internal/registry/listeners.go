package registry

import (
	"net/netip"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// servedChains are the filter chains of one port at its waypoint.
type servedChains struct {
	key, scope string
	service    envoy.WaypointService
	chains     []*listenerv3.FilterChain
}

// policies are what is to be enforced somewhere.
type policies struct {
	http    []*hcmv3.HttpFilter
	network []*listenerv3.Filter
}

// policiesFor translates the policies that are attached to a target. namespaces are where they may be.
func (r *Registry) policiesFor(f coll.Fetch, t policy.Target, namespaces []string, targeted bool) policies {
	mesh := r.envoyMesh(f)
	tokens := r.routing.byNamespace.requestAuths
	if targeted {
		tokens = r.routing.byNamespace.targetedTokens
	}
	t.RootNamespace = mesh.RootNamespace
	var requests []*securityv1.RequestAuthentication
	for _, ns := range withRoot(namespaces, mesh.RootNamespace) {
		requests = append(requests, coll.FetchIndex(f, tokens, ns)...)
	}
	in := policy.Input{
		Mesh: mesh.Config, Proxy: t.Proxy,
		Policies:               r.attachedPolicies(f, t, namespaces, targeted),
		RequestAuthentications: policy.AttachedRequestAuthentications(t, requests),
		JWKS:                   r.keySet(f),
		Authorizer:             r.providers(f, proxyOf(t)),
		ForwardClient:          r.tellsClients(f, t),
	}
	return policies{policy.HTTPFilters(in), policy.NetworkFilters(in)}
}

func (r *Registry) deriveChains() {
	p := &r.proxies
	p.chains = coll.FlatMap("proxies/chains", p.ports, func(c servedChains) string { return c.key }, func(f coll.Fetch, s servedPort) []servedChains {
		if s.proxy.kind != waypointScope {
			return nil
		}
		target, namespaces := servedTarget(s)
		enforced := r.policiesFor(f, target, namespaces, true)
		enforced.http = append(enforced.http, r.limitsOf(f, target, namespaces, r.routesOfPort(f, s))...)
		ws := envoy.WaypointService{
			Host: s.host(), Port: s.number(), Protocol: s.protocol(), Addresses: serviceAddresses(s.service),
			HTTPFilters: enforced.http, NetworkFilters: enforced.network,
		}
		if tcp, ok := coll.FetchOne(f, r.proxies.connections, s.key()); ok {
			ws.TCP = tcp.routes
		}
		mesh := r.telling(f, target, s.service.Proto.Namespace)
		return []servedChains{{s.key(), s.proxy.key, ws, ws.Chains(mesh)}}
	})
	p.chainsByScope = coll.NewIndex(p.chains, func(c servedChains) []string { return []string{c.scope} })
}

func serviceAddresses(s *ambient.Service) []netip.Addr {
	var out []netip.Addr
	for _, a := range s.Proto.Addresses {
		if ip, ok := netip.AddrFromSlice(a.Address); ok && a.Length == nil {
			out = append(out, ip)
		}
	}
	return out
}

func (r *Registry) deriveListeners() coll.Collection[scoped] {
	r.deriveChains()
	p := &r.proxies
	same := coll.WithEqual(sameScoped)
	waypoints := coll.FlatMap("xds/listeners/waypoints", p.active, scoped.key, func(f coll.Fetch, p proxy) []scoped {
		if p.kind != waypointScope {
			return nil
		}
		w := envoy.Waypoint{Mesh: r.telling(f, workloadTarget(p)), Families: p.families}
		for _, c := range coll.FetchIndex(f, r.proxies.chainsByScope, p.key) {
			w.Services = append(w.Services, c.service)
			w.Chains = append(w.Chains, c.chains...)
		}
		w.Workloads = r.boundWorkloads(f, p)
		return listeners(p, w.Listeners())
	}, same)
	gateways := coll.FlatMap("xds/listeners/gateways", p.gateways, scoped.key, func(f coll.Fetch, g gatewayServers) []scoped {
		enforced := r.policiesFor(f, routerTarget(g.proxy), []string{g.proxy.namespace}, false)
		enforced.http = append(enforced.http, r.limitsOf(f, routerTarget(g.proxy), []string{g.proxy.namespace}, r.routesOfGateway(f, g.proxy))...)
		return listeners(g.proxy, envoy.Gateway{
			Mesh: r.telling(f, routerTarget(g.proxy)), Families: g.proxy.families,
			Servers: g.servers, HTTPFilters: enforced.http, NetworkFilters: enforced.network,
		}.Listeners())
	}, same)
	proxyless := coll.FlatMap("xds/listeners/grpc", p.ports, scoped.key, func(_ coll.Fetch, s servedPort) []scoped {
		if s.proxy.kind != proxylessScope {
			return nil
		}
		return listeners(s.proxy, []*listenerv3.Listener{envoy.ProxylessListener(s.host(), s.number())})
	}, same)
	return coll.Join("xds/listeners", waypoints, gateways, proxyless)
}

func listeners(p proxy, list []*listenerv3.Listener) []scoped {
	out := make([]scoped, 0, len(list))
	for _, l := range list {
		out = append(out, encodeScoped(p.key, ListenerType, l.GetName(), l))
	}
	return out
}

// boundWorkloads are those that a waypoint serves by their own address.
func (r *Registry) boundWorkloads(f coll.Fetch, p proxy) []envoy.WaypointWorkload {
	bound := coll.FetchIndex(f, r.routing.workloadsByBinding, p.namespace+"/"+p.gateway)
	if len(bound) == 0 {
		return nil
	}
	enforced := r.policiesFor(f, workloadTarget(p), []string{p.namespace}, true)
	enforced.http = append(enforced.http, r.limitsOf(f, workloadTarget(p), []string{p.namespace}, nil)...)
	out := make([]envoy.WaypointWorkload, 0, len(bound))
	for _, w := range bound {
		out = append(out, envoy.WaypointWorkload{Addresses: workloadAddresses(w.decode().Proto), HTTPFilters: enforced.http, NetworkFilters: enforced.network})
	}
	return out
}

func workloadAddresses(w *workload.Workload) []netip.Addr {
	if w.NetworkMode == workload.NetworkMode_HOST_NETWORK {
		return nil
	}
	var out []netip.Addr
	for _, a := range w.Addresses {
		if ip, ok := netip.AddrFromSlice(a); ok {
			out = append(out, ip)
		}
	}
	return out
}

// keySet finds the documents that tokens are verified with.
func (r *Registry) keySet(f coll.Fetch) func(string) (string, bool) {
	return func(source string) (string, bool) {
		k, ok := coll.FetchOne(f, r.routing.keySets, source)
		return k.Document, ok
	}
}
