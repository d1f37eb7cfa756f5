package registry

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// proxies is what waypoints, gateways and gRPC clients are configured with. Each step is a collection of its own, so that a change is
// computed only as far as it makes a difference:
//
//	scopes → active → ports → routes, connections → destinations → clusters, endpoints
//	                        ↘ chains → listeners
type proxies struct {
	scopes *coll.Static[scope] // those that have clients
	active coll.Collection[proxy]
	// vantages are the places that proxies see endpoints from; opened counts who needs a scope.
	vantages *coll.Static[vantage]
	opened   map[string]int

	ports        coll.Collection[servedPort]
	routes       coll.Collection[routed]
	connections  coll.Collection[forwarded]
	chains       coll.Collection[servedChains]
	gateways     coll.Collection[gatewayServers]
	destinations coll.Collection[destination]
	resources    coll.Collection[scoped]

	portsByScope    coll.Index[servedPort, string]
	chainsByScope   coll.Index[servedChains, string]
	vantagesByScope coll.Index[vantage, string]
}

// proxy is a scope whose Gateway exists.
type proxy struct {
	scope
	waypoint *ambient.Waypoint  // of a waypoint
	gw       *gatewayv1.Gateway // of a waypoint, or a gateway that was deployed for one
}

// scoped is an xDS resource of a scope.
type scoped struct {
	scope, typeURL string
	delta.Resource
}

func (s scoped) key() string { return s.scope + "\x00" + s.typeURL + "\x00" + s.Name }

func sameScoped(a, b scoped) bool {
	return a.Version == b.Version && string(a.Any.GetValue()) == string(b.Any.GetValue())
}

func encodeScoped(scope, typeURL, name string, m proto.Message) scoped {
	return scoped{scope, typeURL, encode(typeURL, name, m, true)}
}

// deriveProxies makes the collections, each after those it reads.
func (r *Registry) deriveProxies() {
	p := &r.proxies
	p.active = coll.Map("proxies", p.scopes, func(p proxy) string { return p.key }, func(f coll.Fetch, s scope) (proxy, bool) {
		out := proxy{scope: s}
		if s.gateway != "" {
			key := s.namespace + "/" + s.gateway
			out.gw, _ = coll.FetchOne(f, r.gateways, key)
			out.waypoint, _ = coll.FetchOne(f, r.waypoints, key)
		}
		switch s.kind {
		case waypointScope:
			return out, out.waypoint != nil
		case routerScope:
			return out, out.waypoint == nil && (s.gateway == "" || out.gw != nil)
		case proxylessScope:
			return out, true
		case unsupported:
		}
		return out, false
	}, coll.WithEqual(func(a, b proxy) bool {
		return a.gw == b.gw && (a.waypoint == nil) == (b.waypoint == nil)
	}))
	r.derivePorts()
	r.deriveGateways()
	vantages := r.deriveVantages()
	destinations := r.deriveDestinations()
	r.deriveClientCredentials(destinations)
	r.deriveCredentials()
	p.resources = coll.Join("xds", vantages,
		r.deriveClusters(destinations), r.deriveEndpoints(destinations), r.deriveListeners(), r.deriveRouteResources())
}

// servedPort is one port of a service that a scope serves by itself: at its waypoint, or to gRPC clients.
type servedPort struct {
	proxy   proxy
	service *ambient.Service
	at      int // index of the port
}

func (s servedPort) number() uint32 { return s.service.Proto.Ports[s.at].ServicePort }

func (s servedPort) host() string { return s.service.Proto.Hostname }

func (s servedPort) protocol() envoy.Protocol {
	return envoy.ProtocolOf(s.service.Proto.Ports[s.at].AppProtocol)
}

func (s servedPort) key() string {
	return s.proxy.key + "\x00" + s.host() + "\x00" + envoy.Outbound(s.number(), "", "")
}

func (r *Registry) derivePorts() {
	p := &r.proxies
	p.ports = coll.FlatMap("proxies/ports", p.active, servedPort.key, func(f coll.Fetch, p proxy) []servedPort {
		var services []*ambient.Service
		switch p.kind {
		case waypointScope:
			services = coll.FetchIndex(f, r.routing.servicesByBinding, p.namespace+"/"+p.gateway)
		case proxylessScope:
			services = coll.FetchAll(f, r.serviceList)
		case routerScope, unsupported:
		}
		var out []servedPort
		for _, s := range services {
			if p.kind == proxylessScope && r.service(f, s.Proto.Hostname, p.client()) != s {
				continue
			}
			for i := range s.Proto.Ports {
				if protocol := envoy.ProtocolOf(s.Proto.Ports[i].AppProtocol); p.kind == waypointScope || protocol.HTTP() {
					out = append(out, servedPort{p, s, i})
				}
			}
		}
		return out
	}, coll.WithEqual(func(a, b servedPort) bool { return a.service == b.service && a.at == b.at && a.proxy.gw == b.proxy.gw }))
	p.portsByScope = coll.NewIndex(p.ports, func(s servedPort) []string { return []string{s.proxy.key} })
}

// publishScopes hands over what scopes have now and every change from now on, until stop is called.
func (r *Registry) publishScopes(p Publisher) (stop func()) {
	return r.proxies.resources.Register(func(events []coll.Event[scoped]) {
		updates := map[string]map[string]*server.Update{}
		for _, e := range events {
			scopeKey, rest, _ := strings.Cut(e.Key, "\x00")
			typeURL, name, _ := strings.Cut(rest, "\x00")
			if updates[scopeKey] == nil {
				updates[scopeKey] = map[string]*server.Update{}
			}
			if typeURL == "" {
				continue
			}
			u := updates[scopeKey][typeURL]
			if u == nil {
				u = &server.Update{TypeURL: typeURL}
				updates[scopeKey][typeURL] = u
			}
			if e.New != nil {
				u.Changed = append(u.Changed, e.New.Resource)
			} else {
				u.Removed = append(u.Removed, name)
			}
		}
		// Endpoints at places come before the clusters that have them, and go after those.
		var late []string
		for _, key := range slices.Sorted(maps.Keys(updates)) {
			of, _, placed := strings.Cut(key, placeMark)
			if _, active := r.proxies.active.Get(of); !active {
				p.WithdrawScope(key)
				delete(updates, key)
			} else if placed {
				p.PublishScope(key, changes(updates[key])...)
				late = append(late, key)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(updates)) {
			if !strings.Contains(key, placeMark) {
				p.PublishScope(key, ordered(updates[key])...)
			}
		}
		for _, key := range late {
			if gone := removals(updates[key]); len(gone) > 0 {
				p.PublishScope(key, gone...)
			}
		}
	})
}

func ordered(updates map[string]*server.Update) []server.Update {
	var out []server.Update
	for _, typeURL := range slices.Sorted(maps.Keys(updates)) {
		out = append(out, *updates[typeURL])
	}
	return out
}

func changes(updates map[string]*server.Update) []server.Update {
	out := ordered(updates)
	for i := range out {
		out[i].Removed = nil
	}
	return out
}

func removals(updates map[string]*server.Update) []server.Update {
	var out []server.Update
	for _, u := range ordered(updates) {
		if len(u.Removed) > 0 {
			out = append(out, server.Update{TypeURL: u.TypeURL, Removed: u.Removed})
		}
	}
	return out
}

// classicGateways are those whose selector matches the pods of a router, oldest first. A selector matches everywhere in the mesh.
func (r *Registry) classicGateways(f coll.Fetch, labels map[string]string) []*networkingv1.Gateway {
	out := coll.FetchAll(f, r.routing.classic, func(gw *networkingv1.Gateway) bool {
		if len(gw.Spec.GetSelector()) == 0 {
			return false
		}
		for k, v := range gw.Spec.GetSelector() {
			if have, ok := labels[k]; !ok || have != v {
				return false
			}
		}
		return true
	})
	slices.SortFunc(out, func(a, b *networkingv1.Gateway) int { return gateway.OlderClassic(&a.ObjectMeta, &b.ObjectMeta) })
	return out
}
