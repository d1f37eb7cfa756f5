package registry

import (
	"cmp"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// view is what translators look up. What they find, and what they do not, is tracked.
type view struct {
	r *Registry
	f coll.Fetch
	// by is the proxy that it is looked up for; the zero value when it is for none.
	by client
	// labels are those by which DestinationRules select it, if they do.
	labels map[string]string
}

func (r *Registry) view(f coll.Fetch) view { return view{r: r, f: f} }

// viewOf is the view of a proxy.
func (r *Registry) viewOf(f coll.Fetch, p proxy) view {
	return view{r, f, p.client(), p.ruleClient().labels}
}

// client is who looks for a service: proxies of a kind, for a namespace. The zero value is nobody in particular.
type client struct {
	kind      scopeKind
	namespace string
}

func (s *scope) client() client { return client{s.kind, s.namespace} }

// sees is whether a client knows of a service. ztunnels, who are told of all, see to it themselves. What services and ServiceEntries
// are exported to is for gateways and gRPC clients only, as in Istio's ambient mode.
func (r *Registry) sees(f coll.Fetch, by client, s *ambient.Service) bool {
	if !r.mayKnow(f, by, s) {
		return false
	}
	if by.kind != routerScope && by.kind != proxylessScope {
		return true
	}
	return s.ExportedTo(by.namespace, r.envoyMesh(f).Config.GetDefaultServiceExportTo())
}

// mayKnow is what meshConfig.serviceEntryVisibility says.
func (r *Registry) mayKnow(f coll.Fetch, by client, s *ambient.Service) bool {
	if s.Proto.Visibility != workload.Service_NAMESPACE || by.namespace == s.Proto.Namespace || by.namespace == "" {
		return true
	}
	return by.kind != waypointScope && !r.meshFor(f).Visibility.EveryProxy()
}

var _ gateway.View = view{}

func (r *Registry) envoyMesh(f coll.Fetch) envoy.Mesh {
	m, _ := coll.FetchOne(f, r.mesh, coll.SingletonKey)
	return envoy.Mesh{Mesh: r.meshFor(f), Config: m.Config, HTTP10: m.HTTP10, Origins: r.origins}
}

func (r *Registry) routeMesh(f coll.Fetch) gateway.Mesh {
	m := r.envoyMesh(f)
	return gateway.Mesh{
		Domain: m.Domain, RootNamespace: m.RootNamespace,
		DefaultRetry:    m.Config.GetDefaultHttpRetryPolicy(),
		DefaultExportTo: m.Config.GetDefaultVirtualServiceExportTo(),
	}
}

// service finds the one of those it sees that a client means by a host: its own namespace's, then the canonical one, then the first.
func (r *Registry) service(f coll.Fetch, host string, by client) *ambient.Service {
	found := coll.FetchIndex(f, r.routing.byHost.services, host)
	return meant(slices.DeleteFunc(found, func(s *ambient.Service) bool { return !r.sees(f, by, s) }), by.namespace)
}

// meant is the service of a host that is meant in a namespace.
func meant(found []*ambient.Service, namespace string) *ambient.Service {
	if len(found) == 0 {
		return nil
	}
	return slices.MinFunc(found, func(a, b *ambient.Service) int {
		return cmp.Or(
			falseFirst(a.Proto.Namespace != namespace, b.Proto.Namespace != namespace),
			falseFirst(!a.Proto.Canonical, !b.Proto.Canonical),
			cmp.Compare(a.Proto.Namespace, b.Proto.Namespace),
		)
	})
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Service implements gateway.View.
func (v view) Service(host, fromNamespace string) *gateway.Service {
	s := v.service(host, fromNamespace)
	out := routedService(s)
	if out != nil && v.by.kind == routerScope && s.Proto.GetIngressUseWaypoint() {
		out.Session = ambient.Session{} // the waypoint knows the endpoints, and keeps the session
	}
	return out
}

// service finds what an object of a namespace means by a host, of what the proxy sees that it is for.
func (v view) service(host, fromNamespace string) *ambient.Service {
	found := slices.DeleteFunc(coll.FetchIndex(v.f, v.r.routing.byHost.services, host), func(s *ambient.Service) bool {
		return !v.r.mayKnow(v.f, client{v.by.kind, fromNamespace}, s) || !v.r.sees(v.f, v.by, s)
	})
	return meant(found, fromNamespace)
}

func routedService(s *ambient.Service) *gateway.Service {
	if s == nil {
		return nil
	}
	out := &gateway.Service{Hostname: s.Proto.Hostname, Namespace: s.Proto.Namespace, Name: s.Proto.Name, Entry: s.Entry != "", Session: s.Session}
	for i := range s.Proto.Ports {
		out.Ports = append(out.Ports, routedPort(s, i))
	}
	return out
}

func routedPort(s *ambient.Service, i int) gateway.Port {
	p := s.Proto.Ports[i]
	return gateway.Port{Number: p.ServicePort, TargetPort: p.TargetPort, Name: s.Ports[i].Name, Protocol: routedProtocol(p.AppProtocol)}
}

func routedProtocol(p workload.AppProtocol) gateway.Protocol {
	switch p {
	case workload.AppProtocol_HTTP11:
		return gateway.HTTP
	case workload.AppProtocol_HTTP2:
		return gateway.HTTP2
	case workload.AppProtocol_GRPC:
		return gateway.GRPC
	case workload.AppProtocol_TLS:
		return gateway.TLS
	case workload.AppProtocol_TCP:
		return gateway.TCP
	}
	return gateway.Unknown
}

// ServiceEntry implements gateway.View.
func (v view) ServiceEntry(namespace, name string) *networkingv1.ServiceEntry {
	o, _ := coll.FetchOne(v.f, v.r.entries, namespace+"/"+name)
	return o
}

// VirtualService implements gateway.View.
func (v view) VirtualService(namespace, name string) *networkingv1.VirtualService {
	o, _ := coll.FetchOne(v.f, v.r.routing.virtualServices, namespace+"/"+name)
	return o
}

// Namespace implements gateway.View.
func (v view) Namespace(name string) *corev1.Namespace {
	o, _ := coll.FetchOne(v.f, v.r.namespaces, name)
	return o
}

// ReferenceGrants implements gateway.View.
func (v view) ReferenceGrants(namespace string) []*gatewayv1.ReferenceGrant {
	return coll.FetchIndex(v.f, v.r.routing.byNamespace.grants, namespace)
}

// Gateway implements gateway.View.
func (v view) Gateway(namespace, name string) *gatewayv1.Gateway {
	o, _ := coll.FetchOne(v.f, v.r.gateways, namespace+"/"+name)
	return o
}

// ListenerSet implements gateway.View.
func (v view) ListenerSet(namespace, name string) *gatewayv1.ListenerSet {
	o, _ := coll.FetchOne(v.f, v.r.routing.listenerSets, namespace+"/"+name)
	return o
}

// ListenerSets implements gateway.View.
func (v view) ListenerSets(gatewayNamespace, gatewayName string) []*gatewayv1.ListenerSet {
	return coll.FetchIndex(v.f, v.r.routing.byGateway.listenerSets, gatewayNamespace+"/"+gatewayName)
}

// GatewayClass implements gateway.View.
func (v view) GatewayClass(name string) *gatewayv1.GatewayClass {
	o, _ := coll.FetchOne(v.f, v.r.classes, name)
	return o
}

// DestinationRule implements gateway.View.
func (v view) DestinationRule(host, fromNamespace string) *networkingv1.DestinationRule {
	serviceNamespace := ""
	if s := v.service(host, fromNamespace); s != nil {
		serviceNamespace = s.Proto.Namespace
	}
	return v.r.rule(v.f, host, ruleClient{fromNamespace, v.labels}, serviceNamespace)
}

// olderFirst orders objects by age, then by namespace and name.
func olderFirst(a, b *metav1.ObjectMeta) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
