package registry

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// backendTLS is the TLS that a BackendTLSPolicy has the proxies of a scope speak to a destination; nil for none. What a DestinationRule
// says of the TLS of the port counts in its place. Only one of the proxies on the way to a backend begins TLS.
func (r *Registry) backendTLS(f coll.Fetch, t target) *gateway.BackendTLS {
	if t.proxy.kind == proxylessScope {
		return nil
	}
	named := gateway.Service{Namespace: t.service.Proto.Namespace, Name: t.service.Proto.Name, Entry: t.service.Entry != ""}
	policies := coll.FetchIndex(f, r.routing.byTarget.backendTLS, named.TargetKey())
	if len(policies) == 0 || t.policy().GetTls() != nil {
		return nil
	}
	switch byClient := envoy.ProtocolOf(t.service.Proto.Ports[t.at].AppProtocol) == envoy.TLS; {
	case byClient && t.own == "tcp":
		return nil // the connections that come to the waypoint have TLS already
	case !byClient && t.proxy.kind == routerScope && t.service.Proto.GetIngressUseWaypoint() && len(t.service.Proto.Addresses) > 0:
		return nil // the waypoint does it: see byWaypoint
	}
	s := routedService(t.service)
	return gateway.BackendTLSFor(r.view(f), policies, s, s.Ports[t.at])
}

func (r *Registry) backendTLSStatuses() coll.Collection[Status] {
	x := &r.routing.byTarget
	return statusOf("backendTLSPolicies", r.routing.backendTLS, func(f coll.Fetch, p *gatewayv1.BackendTLSPolicy) (Status, bool) {
		state := gateway.BackendTLSState{Waypoint: func(s *gateway.Service) string { return r.waypointOf(f, s) }}
		for _, key := range gateway.BackendTLSTargets(p) {
			state.Others = appendNew(state.Others, coll.FetchIndex(f, x.backendTLS, key))
			state.Routes.HTTP = appendNew(state.Routes.HTTP, coll.FetchIndex(f, x.http, key))
			state.Routes.GRPC = appendNew(state.Routes.GRPC, coll.FetchIndex(f, x.grpc, key))
			state.Routes.TLS = appendNew(state.Routes.TLS, coll.FetchIndex(f, x.tls, key))
			state.Routes.TCP = appendNew(state.Routes.TCP, coll.FetchIndex(f, x.tcp, key))
		}
		status := gateway.BackendTLSPolicyStatus(r.view(f), r.routeMesh(f), p, state)
		if status == nil {
			return Status{}, false
		}
		return newStatus(groupGateway, "v1", gateway.KindBackendTLSPolicy, p, status)
	})
}

// waypointOf is the key of the waypoint that serves a service; empty for none.
func (r *Registry) waypointOf(f coll.Fetch, s *gateway.Service) string {
	found := r.service(f, s.Hostname, client{namespace: s.Namespace})
	if found == nil {
		return ""
	}
	if keys := boundTo(found.Binding); len(keys) > 0 {
		return keys[0]
	}
	return ""
}
