package registry

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// destination is a cluster of a scope.
type destination struct {
	proxy  proxy
	own    string // http or tcp at the service's own waypoint; empty for a cluster like a client's
	host   string
	port   uint32
	subset string
}

func (d destination) name() string {
	if d.own != "" {
		return envoy.InboundVIP(d.port, d.own, d.subset, d.host)
	}
	return envoy.Outbound(d.port, d.subset, d.host)
}

func (d destination) key() string { return d.proxy.key + "\x00" + d.name() }

// deriveDestinations collects what routes use and what a scope has anyway.
func (r *Registry) deriveDestinations() coll.Collection[destination] {
	p := &r.proxies
	same := coll.WithEqual(func(a, b destination) bool { return a.key() == b.key() })
	own := coll.FlatMap("destinations/own", p.ports, destination.key, func(f coll.Fetch, s servedPort) []destination {
		subsets := []string{""}
		if dr := r.rule(f, s.host(), s.proxy.ruleClient(), s.service.Proto.Namespace); dr != nil {
			for _, subset := range dr.Spec.GetSubsets() {
				subsets = append(subsets, subset.GetName())
			}
		}
		var out []destination
		for _, subset := range subsets {
			d := destination{proxy: s.proxy, host: s.host(), port: s.number(), subset: subset}
			if s.proxy.kind != waypointScope {
				out = append(out, d)
				continue
			}
			if s.protocol().HTTP() {
				d.own = "http"
				out = append(out, d)
			}
			if s.protocol().TCP() {
				d.own = "tcp"
				out = append(out, d)
			}
		}
		return out
	}, same)
	requests := coll.FlatMap("destinations/routes", p.routes, destination.key, func(_ coll.Fetch, o routed) []destination { return o.uses }, same)
	connections := coll.FlatMap("destinations/connections", p.connections, destination.key, func(_ coll.Fetch, o forwarded) []destination { return o.uses }, same)
	gateways := coll.FlatMap("destinations/gateways", p.gateways, destination.key, func(_ coll.Fetch, g gatewayServers) []destination { return g.uses }, same)
	p.destinations = coll.Join("destinations", own, requests, connections, gateways, r.collectorDestinations(same), r.deriveAuthorizers())
	return p.destinations
}

// target is a destination that exists, with all that is said of it.
type target struct {
	destination
	service    *ambient.Service
	at         int // index of the port
	rule       *networkingv1.DestinationRule
	subset     *networkingapi.Subset
	resolution envoy.Resolution
}

// resolve finds the service and the rule of a destination; false when there is no such service, port or subset: routes to it
// then answer 503.
func (r *Registry) resolve(f coll.Fetch, d destination) (target, bool) {
	t := target{destination: d, service: r.service(f, d.host, d.proxy.client())}
	if t.service == nil {
		return t, false
	}
	t.at = slices.IndexFunc(t.service.Proto.Ports, func(p *workload.Port) bool { return p.ServicePort == d.port })
	if t.at < 0 {
		return t, false
	}
	t.rule = r.rule(f, d.host, d.proxy.ruleClient(), t.service.Proto.Namespace)
	if d.subset != "" {
		at := -1
		if t.rule != nil {
			at = slices.IndexFunc(t.rule.Spec.GetSubsets(), func(s *networkingapi.Subset) bool { return s.GetName() == d.subset })
		}
		if at < 0 {
			return t, false
		}
		t.subset = t.rule.Spec.GetSubsets()[at]
	}
	t.resolution = r.resolution(f, t.service)
	if t.resolution == envoy.ByOriginal && d.proxy.kind == routerScope {
		t.resolution = envoy.ByEndpoints // where clients wanted to go is the gateway itself
	}
	return t, true
}

func (r *Registry) resolution(f coll.Fetch, s *ambient.Service) envoy.Resolution {
	if s.Entry == "" {
		return envoy.ByEndpoints
	}
	se, ok := coll.FetchOne(f, r.entries, s.Entry)
	if !ok {
		return envoy.ByEndpoints
	}
	switch se.Spec.GetResolution() {
	case networkingapi.ServiceEntry_DNS:
		return envoy.ByDNS
	case networkingapi.ServiceEntry_DNS_ROUND_ROBIN:
		return envoy.ByDNSOne
	case networkingapi.ServiceEntry_NONE:
		return envoy.ByOriginal
	case networkingapi.ServiceEntry_STATIC, networkingapi.ServiceEntry_DYNAMIC_DNS:
	}
	return envoy.ByEndpoints
}

func (t target) policy() *networkingapi.TrafficPolicy {
	if t.rule == nil {
		return nil
	}
	return envoy.EffectivePolicy(t.rule.Spec.GetTrafficPolicy(), t.destination.subsetPolicy(t.subset), t.port)
}

func (d destination) subsetPolicy(s *networkingapi.Subset) *networkingapi.TrafficPolicy {
	return s.GetTrafficPolicy()
}

func (r *Registry) deriveClusters(destinations coll.Collection[destination]) coll.Collection[scoped] {
	same := coll.WithEqual(sameScoped)
	services := coll.FlatMap("xds/clusters/services", destinations, scoped.key, func(f coll.Fetch, d destination) []scoped {
		t, ok := r.resolve(f, d)
		if !ok {
			return nil
		}
		c := envoy.Cluster{
			Mesh: r.envoyMesh(f), Name: d.name(), Host: d.host, Service: t.service.Proto.Name, Namespace: t.service.Proto.Namespace,
			Port: d.port, Protocol: envoy.ProtocolOf(t.service.Proto.Ports[t.at].AppProtocol), Subset: d.subset,
			Policy: t.policy(), Resolution: t.resolution, Proxyless: d.proxy.kind == proxylessScope,
			SubjectAltNames: t.service.Proto.SubjectAltNames, Prefers: t.service.Proto.LoadBalancing, BackendTLS: r.backendTLS(f, t),
			Drains: t.service.Session != ambient.Session{},
		}
		if t.resolution == envoy.ByEndpoints && !c.Proxyless {
			c.PeerIdentities = r.sidecarIdentities(f, t)
		}
		if d.own == "tcp" {
			c.Protocol = envoy.TCP
		}
		if t.rule != nil {
			c.Rule = objectKey(t.rule)
		}
		if t.resolution == envoy.ByDNS || t.resolution == envoy.ByDNSOne {
			c.Endpoints = r.endpointsOf(f, t)
		}
		return []scoped{encodeScoped(d.proxy.key, ClusterType, c.Name, c.Resource())}
	}, same)
	infrastructure := coll.FlatMap("xds/clusters/proxy", r.proxies.active, scoped.key, func(f coll.Fetch, p proxy) []scoped {
		if p.kind == proxylessScope {
			return nil
		}
		byWaypoint := p.kind == routerScope && len(coll.FetchIndex(f, r.routing.ingressByWaypoint, true)) > 0
		var out []scoped
		for _, c := range envoy.ProxyClusters(r.envoyMesh(f), p.kind == waypointScope, byWaypoint) {
			out = append(out, encodeScoped(p.key, ClusterType, c.GetName(), c))
		}
		return out
	}, same)
	return coll.Join("xds/clusters", services, infrastructure)
}

func (r *Registry) deriveEndpoints(destinations coll.Collection[destination]) coll.Collection[scoped] {
	return coll.FlatMap("xds/endpoints", destinations, scoped.key, func(f coll.Fetch, d destination) []scoped {
		t, ok := r.resolve(f, d)
		if !ok || t.resolution != envoy.ByEndpoints {
			return nil
		}
		return r.assignments(f, t)
	}, coll.WithEqual(sameScoped))
}

// endpointsOf are the addresses behind a destination.
func (r *Registry) endpointsOf(f coll.Fetch, t target) []envoy.Endpoint {
	if by, ok := r.byWaypoint(f, t); ok {
		return by
	}
	mesh := r.meshFor(f)
	all := t.service.Proto.GetLoadBalancing().GetHealthPolicy() == workload.LoadBalancing_ALLOW_ALL
	unready := !all && r.unready(f, t)
	drains := t.service.Session != ambient.Session{} && t.proxy.kind != proxylessScope
	var out []envoy.Endpoint
	for _, kept := range coll.FetchIndex(f, r.routing.workloadsByService, t.service.Key()) {
		draining := drains && kept.leaving && kept.unhealthy && !all
		if kept.unhealthy && !all && !draining && (!unready || kept.leaving) || !hasLabels(kept.labels, t.subset.GetLabels()) {
			continue
		}
		w := kept.decode()
		port := targetPort(w.Proto.Services[t.service.Key()], t.port)
		address := firstAddress(w.Proto)
		if port == 0 || address == "" {
			continue
		}
		e := envoy.Endpoint{
			Address: address, Port: port, Weight: w.Proto.GetCapacity().GetValue(), Workload: describe(w.Proto), Unhealthy: kept.unhealthy && !all, Draining: draining,
			Node: w.Proto.Node, Network: w.Proto.Network, Cluster: w.Proto.ClusterId, Labels: kept.labels,
			Locality: envoy.Locality{Region: w.Proto.GetLocality().GetRegion(), Zone: w.Proto.GetLocality().GetZone(), Subzone: w.Proto.GetLocality().GetSubzone()},
		}
		if w.Proto.TunnelProtocol == workload.TunnelProtocol_HBONE && t.proxy.kind != proxylessScope && w.Proto.Hostname == "" {
			e.HBONE, e.Identity = true, identityOf(mesh, w.Proto)
		} else if w.Sidecar {
			e.Sidecar, e.Identity = true, identityOf(mesh, w.Proto)
		}
		out = append(out, e)
	}
	return out
}

// sidecarIdentities are those of the endpoints that take mutual TLS, sorted. Few services have any.
func (r *Registry) sidecarIdentities(f coll.Fetch, t target) []string {
	mesh := r.meshFor(f)
	var out []string
	for _, kept := range coll.FetchIndex(f, r.routing.workloadsByService, t.service.Key()) {
		if !kept.sidecar {
			continue
		}
		if w := kept.decode(); w.Proto.TunnelProtocol != workload.TunnelProtocol_HBONE {
			out = append(out, identityOf(mesh, w.Proto))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// byWaypoint replaces the endpoints of a service that wants its traffic from gateways to come by way of its waypoint: each is then
// the service's address, reached through one of the waypoint's pods.
func (r *Registry) byWaypoint(f coll.Fetch, t target) ([]envoy.Endpoint, bool) {
	if t.proxy.kind != routerScope || !t.service.Proto.GetIngressUseWaypoint() || len(t.service.Proto.Addresses) == 0 {
		return nil, false
	}
	vip, ok := netip.AddrFromSlice(t.service.Proto.Addresses[0].GetAddress())
	if !ok {
		return nil, false
	}
	mesh := r.meshFor(f)
	var out []envoy.Endpoint
	for _, s := range r.waypointServices(f, t.service.Proto.GetWaypoint()) {
		for _, kept := range coll.FetchIndex(f, r.routing.workloadsByService, s.Key()) {
			if kept.unhealthy {
				continue
			}
			w := kept.decode()
			address, err := netip.ParseAddr(firstAddress(w.Proto))
			if err != nil {
				continue
			}
			port := targetPort(w.Proto.Services[s.Key()], t.service.Proto.GetWaypoint().GetHboneMtlsPort())
			if port == 0 {
				continue
			}
			out = append(out, envoy.Endpoint{
				Address: vip.String(), Port: t.port, HBONE: true, Waypoint: netip.AddrPortFrom(address, uint16(port)),
				Identity: identityOf(mesh, w.Proto), Workload: describe(w.Proto),
			})
		}
	}
	return out, true
}

// waypointServices are the Services that stand for the address of a waypoint.
func (r *Registry) waypointServices(f coll.Fetch, at *workload.GatewayAddress) []*ambient.Service {
	if h := at.GetHostname(); h != nil {
		if s := r.service(f, h.GetHostname(), client{namespace: h.GetNamespace()}); s != nil {
			return []*ambient.Service{s}
		}
		return nil
	}
	ip, ok := netip.AddrFromSlice(at.GetAddress().GetAddress())
	if !ok {
		return nil
	}
	return coll.FetchIndex(f, r.routing.servicesByAddress, at.GetAddress().GetNetwork()+"/"+ip.String())
}

func identityOf(mesh ambient.Mesh, w *workload.Workload) string {
	return "spiffe://" + cmp.Or(w.TrustDomain, mesh.TrustDomain) + "/ns/" + w.Namespace + "/sa/" + w.ServiceAccount
}

// describe is what telemetry is told of an endpoint.
func describe(w *workload.Workload) string {
	return strings.Join([]string{w.WorkloadName, w.Namespace, w.CanonicalName, w.CanonicalRevision, w.ClusterId}, ";")
}

func targetPort(ports *workload.PortList, port uint32) uint32 {
	for _, p := range ports.GetPorts() {
		if p.ServicePort == port {
			return p.TargetPort
		}
	}
	return 0
}

// firstAddress is an address, or the name of what has none.
func firstAddress(w *workload.Workload) string {
	for _, a := range w.Addresses {
		if ip, ok := netip.AddrFromSlice(a); ok {
			return ip.String()
		}
	}
	return w.Hostname
}

// hasLabels reports whether all of the wanted labels are there; wanting none is always satisfied.
func hasLabels(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// selectedTarget is the pods' port for a port of a Service that selects them; 0 if it does not.
func selectedTarget(s *ambient.Service, labels map[string]string, port uint32) uint32 {
	if len(s.Selector) == 0 || !hasLabels(labels, s.Selector) {
		return 0
	}
	for _, p := range s.Proto.Ports {
		if p.ServicePort == port {
			return p.TargetPort
		}
	}
	return 0
}
