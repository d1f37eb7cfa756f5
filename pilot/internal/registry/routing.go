package registry

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// routing is what decides where requests go, and the ways to find it.
type routing struct {
	virtualServices *coll.Static[*networkingv1.VirtualService]
	rules           *coll.Static[*networkingv1.DestinationRule]
	classic         *coll.Static[*networkingv1.Gateway]
	listenerSets    *coll.Static[*gatewayv1.ListenerSet]
	httpRoutes      *coll.Static[*gatewayv1.HTTPRoute]
	grpcRoutes      *coll.Static[*gatewayv1.GRPCRoute]
	tlsRoutes       *coll.Static[*gatewayv1.TLSRoute]
	tcpRoutes       *coll.Static[*gatewayv1.TCPRoute]
	grants          *coll.Static[*gatewayv1.ReferenceGrant]
	backendTLS      *coll.Static[*gatewayv1.BackendTLSPolicy]
	requestAuths    *coll.Static[*securityv1.RequestAuthentication]
	telemetries     *coll.Static[*telemetryv1.Telemetry]
	unsupported     []unsupportedKind
	keySets         *coll.Static[KeySet]

	// added are the listeners of ListenerSets.
	added coll.Collection[addedListeners]

	// attached are routes of the Gateway API with the services they name.
	attachedHTTP coll.Collection[attached[*gatewayv1.HTTPRoute]]
	attachedGRPC coll.Collection[attached[*gatewayv1.GRPCRoute]]
	attachedTLS  coll.Collection[attached[*gatewayv1.TLSRoute]]
	attachedTCP  coll.Collection[attached[*gatewayv1.TCPRoute]]

	byHost struct {
		services        coll.Index[*ambient.Service, string]
		virtualServices coll.Index[*networkingv1.VirtualService, string]
		rules           coll.Index[*networkingv1.DestinationRule, string] // by namespace and host
		http            coll.Index[attached[*gatewayv1.HTTPRoute], string]
		grpc            coll.Index[attached[*gatewayv1.GRPCRoute], string]
		tls             coll.Index[attached[*gatewayv1.TLSRoute], string]
		tcp             coll.Index[attached[*gatewayv1.TCPRoute], string]
	}
	// byGateway finds what names a Gateway, or a ListenerSet of one: routes by parentKey, the others by namespace/name.
	byGateway struct {
		virtualServices coll.Index[*networkingv1.VirtualService, string] // classic ones
		listenerSets    coll.Index[*gatewayv1.ListenerSet, string]
		http            coll.Index[*gatewayv1.HTTPRoute, string]
		grpc            coll.Index[*gatewayv1.GRPCRoute, string]
		tls             coll.Index[*gatewayv1.TLSRoute, string]
		tcp             coll.Index[*gatewayv1.TCPRoute, string]
	}
	// byTarget finds what names a service, by its key as a target.
	byTarget struct {
		backendTLS coll.Index[*gatewayv1.BackendTLSPolicy, string]
		http       coll.Index[*gatewayv1.HTTPRoute, string]
		grpc       coll.Index[*gatewayv1.GRPCRoute, string]
		tls        coll.Index[*gatewayv1.TLSRoute, string]
		tcp        coll.Index[*gatewayv1.TCPRoute, string]
	}
	byNamespace struct {
		grants         coll.Index[*gatewayv1.ReferenceGrant, string]
		targetedAuthz  coll.Index[*securityv1.AuthorizationPolicy, string] // with targetRefs: those of waypoints
		authz          coll.Index[*securityv1.AuthorizationPolicy, string]
		requestAuths   coll.Index[*securityv1.RequestAuthentication, string]
		targetedTokens coll.Index[*securityv1.RequestAuthentication, string]
		telemetries    coll.Index[*telemetryv1.Telemetry, string]
	}
	workloadsByService coll.Index[*address, string]
	workloadsByBinding coll.Index[*address, string]
	workloadsByGateway coll.Index[*address, string] // those that serve one
	servicesByBinding  coll.Index[*ambient.Service, string]
	servicesByAddress  coll.Index[*ambient.Service, string]
	ingressByWaypoint  coll.Index[*ambient.Service, bool] // true: gateways go through the service's waypoint
}

// attached is a route with the hosts of the services that are its parents.
type attached[T any] struct {
	key   string
	route T
	hosts []string
}

// newRouting makes the sources.
func (r *Registry) newRouting() {
	r.routing = routing{
		virtualServices: source[*networkingv1.VirtualService](r, groupNetworking, "VirtualService"),
		rules:           source[*networkingv1.DestinationRule](r, groupNetworking, "DestinationRule"),
		classic:         source[*networkingv1.Gateway](r, groupNetworking, "Gateway"),
		listenerSets:    source[*gatewayv1.ListenerSet](r, groupGateway, gateway.KindListenerSet),
		httpRoutes:      source[*gatewayv1.HTTPRoute](r, groupGateway, "HTTPRoute"),
		grpcRoutes:      source[*gatewayv1.GRPCRoute](r, groupGateway, "GRPCRoute"),
		tlsRoutes:       source[*gatewayv1.TLSRoute](r, groupGateway, "TLSRoute"),
		tcpRoutes:       source[*gatewayv1.TCPRoute](r, groupGateway, "TCPRoute"),
		grants:          source[*gatewayv1.ReferenceGrant](r, groupGateway, "ReferenceGrant"),
		backendTLS:      source[*gatewayv1.BackendTLSPolicy](r, groupGateway, gateway.KindBackendTLSPolicy),
		requestAuths:    source[*securityv1.RequestAuthentication](r, groupSecurity, "RequestAuthentication"),
		telemetries:     source[*telemetryv1.Telemetry](r, groupTelemetry, "Telemetry"),
		unsupported:     unsupportedKinds(r),
		keySets:         coll.NewStatic(r.graph, "key sets", func(k KeySet) string { return k.Source }),
	}
	r.routing.keySets.MarkSynced()
	r.newRateLimits()
}

// deriveRouting makes what is found by something other than its key.
func (r *Registry) deriveRouting() {
	x := &r.routing
	x.byHost.services = coll.NewIndex(r.serviceList, func(s *ambient.Service) []string { return []string{s.Proto.Hostname} })
	x.workloadsByService = coll.NewIndex(r.workloads, (*address).services)
	x.workloadsByBinding = coll.NewIndex(r.workloads, func(w *address) []string { return boundTo(w.bound()) })
	x.workloadsByGateway = coll.NewIndex(r.workloads, func(w *address) []string {
		if name := w.labels[labelGatewayName]; name != "" {
			return []string{w.decode().Proto.Namespace + "/" + name}
		}
		return nil
	})
	x.servicesByBinding = coll.NewIndex(r.serviceList, func(s *ambient.Service) []string { return boundTo(s.Binding) })
	x.ingressByWaypoint = coll.NewIndex(r.serviceList, func(s *ambient.Service) []bool {
		if !s.Proto.GetIngressUseWaypoint() {
			return nil
		}
		return []bool{true}
	})
	x.servicesByAddress = coll.NewIndex(r.serviceList, func(s *ambient.Service) []string { return serviceAliases(s.Proto) })

	x.byHost.virtualServices = coll.NewIndex(x.virtualServices, func(vs *networkingv1.VirtualService) []string {
		return qualify(vs.Spec.GetHosts(), vs.Namespace)
	})
	x.byHost.rules = coll.NewIndex(x.rules, func(dr *networkingv1.DestinationRule) []string {
		return []string{dr.Namespace + "\x00" + qualified(dr.Spec.GetHost(), dr.Namespace)}
	})
	x.byGateway.virtualServices = coll.NewIndex(x.virtualServices, func(vs *networkingv1.VirtualService) (keys []string) {
		for _, name := range vs.Spec.GetGateways() {
			if !strings.Contains(name, "/") {
				name = vs.Namespace + "/" + name
			}
			keys = append(keys, name)
		}
		return keys
	})
	x.byGateway.listenerSets = coll.NewIndex(x.listenerSets, listenerSetParents)
	x.byGateway.http = coll.NewIndex(x.httpRoutes, func(o *gatewayv1.HTTPRoute) []string { return parentGateways(o.Spec.ParentRefs, o.Namespace) })
	x.byGateway.grpc = coll.NewIndex(x.grpcRoutes, func(o *gatewayv1.GRPCRoute) []string { return parentGateways(o.Spec.ParentRefs, o.Namespace) })
	x.byGateway.tls = coll.NewIndex(x.tlsRoutes, func(o *gatewayv1.TLSRoute) []string { return parentGateways(o.Spec.ParentRefs, o.Namespace) })
	x.byGateway.tcp = coll.NewIndex(x.tcpRoutes, func(o *gatewayv1.TCPRoute) []string { return parentGateways(o.Spec.ParentRefs, o.Namespace) })

	x.byTarget.backendTLS = coll.NewIndex(x.backendTLS, gateway.BackendTLSTargets)
	x.byTarget.http = coll.NewIndex(x.httpRoutes, gateway.HTTPRouteTargets)
	x.byTarget.grpc = coll.NewIndex(x.grpcRoutes, gateway.GRPCRouteTargets)
	x.byTarget.tls = coll.NewIndex(x.tlsRoutes, gateway.TLSRouteTargets)
	x.byTarget.tcp = coll.NewIndex(x.tcpRoutes, gateway.TCPRouteTargets)

	x.byNamespace.grants = coll.NewIndex(x.grants, func(g *gatewayv1.ReferenceGrant) []string { return []string{g.Namespace} })
	x.byNamespace.authz = coll.NewIndex(r.policies, func(p *securityv1.AuthorizationPolicy) []string { return []string{p.Namespace} })
	x.byNamespace.targetedAuthz = coll.NewIndex(r.policies, func(p *securityv1.AuthorizationPolicy) []string {
		return namespaceIf(p.Namespace, len(p.Spec.GetTargetRefs()) > 0 || p.Spec.GetTargetRef() != nil)
	})
	x.byNamespace.requestAuths = coll.NewIndex(x.requestAuths, func(p *securityv1.RequestAuthentication) []string { return []string{p.Namespace} })
	x.byNamespace.targetedTokens = coll.NewIndex(x.requestAuths, func(p *securityv1.RequestAuthentication) []string {
		return namespaceIf(p.Namespace, len(p.Spec.GetTargetRefs()) > 0 || p.Spec.GetTargetRef() != nil)
	})
	x.byNamespace.telemetries = coll.NewIndex(x.telemetries, func(o *telemetryv1.Telemetry) []string { return []string{o.Namespace} })
	c := &r.credentials
	c.rolesOf = coll.NewIndex(c.roles, func(o *rbacv1.Role) []string { return []string{o.Namespace} })
	c.bindingsOf = coll.NewIndex(c.bindings, func(o *rbacv1.RoleBinding) []string { return []string{o.Namespace} })
	c.gatewayAccounts = coll.NewIndex(r.pods, func(p *ambient.Pod) []string {
		if name := p.Labels[labelGatewayName]; name != "" && !p.Ended() {
			return []string{p.Namespace + "/" + name}
		}
		return nil
	})
	r.deriveRateLimits()
	r.deriveAttached()
	r.deriveAddedListeners()
}

func namespaceIf(namespace string, yes bool) []string {
	if !yes {
		return nil
	}
	return []string{namespace}
}

// deriveAttached finds the services that routes name as parents.
func (r *Registry) deriveAttached() {
	x := &r.routing
	x.attachedHTTP = attachments(r, "routes/http", x.httpRoutes, func(o *gatewayv1.HTTPRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs })
	x.attachedGRPC = attachments(r, "routes/grpc", x.grpcRoutes, func(o *gatewayv1.GRPCRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs })
	x.attachedTLS = attachments(r, "routes/tls", x.tlsRoutes, func(o *gatewayv1.TLSRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs })
	x.attachedTCP = attachments(r, "routes/tcp", x.tcpRoutes, func(o *gatewayv1.TCPRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs })
	x.byHost.http = coll.NewIndex(x.attachedHTTP, func(a attached[*gatewayv1.HTTPRoute]) []string { return a.hosts })
	x.byHost.grpc = coll.NewIndex(x.attachedGRPC, func(a attached[*gatewayv1.GRPCRoute]) []string { return a.hosts })
	x.byHost.tls = coll.NewIndex(x.attachedTLS, func(a attached[*gatewayv1.TLSRoute]) []string { return a.hosts })
	x.byHost.tcp = coll.NewIndex(x.attachedTCP, func(a attached[*gatewayv1.TCPRoute]) []string { return a.hosts })
}

// attachments finds the services that routes of a kind name as parents. A ServiceEntry is one by its name, so that it has to be looked
// up.
func attachments[T interface {
	comparable
	kube.Object
}](r *Registry, name string, routes coll.Collection[T], parents func(T) []gatewayv1.ParentReference) coll.Collection[attached[T]] {
	return coll.Map(name, routes, func(a attached[T]) string { return a.key }, func(f coll.Fetch, o T) (attached[T], bool) {
		hosts := gateway.ParentServices(r.view(f), r.routeMesh(f), parents(o), o.GetNamespace())
		return attached[T]{objectKey(o), o, hosts}, len(hosts) > 0
	}, coll.WithEqual(sameAttached[T]))
}

func sameAttached[T comparable](a, b attached[T]) bool {
	return a.route == b.route && slices.Equal(a.hosts, b.hosts)
}

// boundTo is the waypoint, also one that is not ready: it has to know what it will serve.
func boundTo(b ambient.Binding) []string {
	if b.Reason != ambient.ReasonWaypointAccepted && b.Reason != ambient.ReasonWaypointIsNotReady {
		return nil
	}
	return []string{b.Waypoint}
}

// qualified makes a short name unambiguous for indexes, whatever the domain of the cluster is; see hostKeys.
func qualified(host, namespace string) string {
	if host == "" || host == "*" || strings.Contains(host, ".") {
		return host
	}
	return host + "\x00" + namespace
}

func qualify(hosts []string, namespace string) []string {
	out := make([]string, 0, len(hosts))
	for _, h := range hosts {
		out = append(out, qualified(h, namespace))
	}
	return out
}

// hostKeys are the index keys under which objects about a host are found, the most specific ones first: its name, the short one
// in its own namespace, and the wildcards that it falls under.
func hostKeys(host, domain string) []string {
	out := []string{host}
	if service, ok := strings.CutSuffix(host, ".svc."+domain); ok {
		if name, namespace, ok := strings.Cut(service, "."); ok && !strings.Contains(namespace, ".") {
			out = append(out, name+"\x00"+namespace)
		}
	}
	rest := strings.TrimPrefix(host, "*.")
	for {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		out = append(out, "*."+after)
		rest = after
	}
	return append(out, "*")
}
