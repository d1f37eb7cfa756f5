package registry

import (
	"cmp"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
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
}

func (r *Registry) view(f coll.Fetch) view { return view{r: r, f: f} }

// viewOf is the view of a proxy.
func (r *Registry) viewOf(f coll.Fetch, p proxy) view { return view{r, f, p.client()} }

// client is who looks for a service: proxies of a kind, for a namespace. The zero value is nobody in particular.
type client struct {
	kind      scopeKind
	namespace string
}

func (s *scope) client() client { return client{s.kind, s.namespace} }

// sees is whether a client knows of a service. ztunnels, who are told of all, see to it themselves.
func (r *Registry) sees(f coll.Fetch, by client, s *ambient.Service) bool {
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
	found := slices.DeleteFunc(coll.FetchIndex(f, r.routing.byHost.services, host), func(s *ambient.Service) bool { return !r.sees(f, by, s) })
	if len(found) == 0 {
		return nil
	}
	return slices.MinFunc(found, func(a, b *ambient.Service) int {
		return cmp.Or(
			falseFirst(a.Proto.Namespace != by.namespace, b.Proto.Namespace != by.namespace),
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

// service finds what an object of a namespace means by a host, if the proxy that it is for sees that, too.
func (v view) service(host, fromNamespace string) *ambient.Service {
	s := v.r.service(v.f, host, client{v.by.kind, fromNamespace})
	if s == nil || !v.r.sees(v.f, v.by, s) {
		return nil
	}
	return s
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
	return v.r.rule(v.f, host, fromNamespace, serviceNamespace)
}

// rule finds the DestinationRule for a host: in the client's namespace, then the service's, then the root one; in each the most
// specific host counts.
func (r *Registry) rule(f coll.Fetch, host, client, service string) *networkingv1.DestinationRule {
	mesh := r.envoyMesh(f)
	keys := hostKeys(host, mesh.Domain)
	tried := map[string]bool{"": true}
	for _, ns := range []string{client, service, mesh.RootNamespace} {
		if tried[ns] || ns == client && client == mesh.RootNamespace && service != client && service != "" {
			continue
		}
		tried[ns] = true
		for i, key := range keys {
			found := coll.FetchIndex(f, r.routing.byHost.rules, ns+"\x00"+key)
			if i == 0 && len(keys) > 1 && !strings.HasPrefix(keys[1], "*") {
				// The full and the short name are the same host.
				found = append(found, coll.FetchIndex(f, r.routing.byHost.rules, ns+"\x00"+keys[1])...)
			}
			if merged := mergeRules(visible(found, client, mesh.Config.GetDefaultDestinationRuleExportTo())); merged != nil {
				return merged
			}
		}
	}
	return nil
}

// visible leaves out rules that are not exported to the namespace, and those for some clients only.
func visible(rules []*networkingv1.DestinationRule, client string, defaultTo []string) []*networkingv1.DestinationRule {
	var out []*networkingv1.DestinationRule
	for _, dr := range rules {
		to := dr.Spec.GetExportTo()
		if len(to) == 0 {
			to = defaultTo
		}
		if dr.Spec.GetWorkloadSelector() == nil && exportedTo(to, dr.Namespace, client) {
			out = append(out, dr)
		}
	}
	return out
}

func exportedTo(to []string, from, namespace string) bool {
	if len(to) == 0 || from == namespace {
		return true
	}
	return slices.Contains(to, "*") || slices.Contains(to, namespace)
}

// mergeRules makes one of the rules for a host: the traffic policy of the oldest, and the subsets of all.
func mergeRules(rules []*networkingv1.DestinationRule) *networkingv1.DestinationRule {
	if len(rules) < 2 {
		if len(rules) == 0 {
			return nil
		}
		return rules[0]
	}
	slices.SortFunc(rules, func(a, b *networkingv1.DestinationRule) int { return olderFirst(&a.ObjectMeta, &b.ObjectMeta) })
	merged := &networkingv1.DestinationRule{TypeMeta: rules[0].TypeMeta, ObjectMeta: rules[0].ObjectMeta}
	merged.Spec.Host, merged.Spec.TrafficPolicy, merged.Spec.ExportTo = rules[0].Spec.Host, rules[0].Spec.TrafficPolicy, rules[0].Spec.ExportTo
	for _, dr := range rules {
		if merged.Spec.TrafficPolicy == nil {
			merged.Spec.TrafficPolicy = dr.Spec.TrafficPolicy
		}
		for _, s := range dr.Spec.GetSubsets() {
			if !slices.ContainsFunc(merged.Spec.Subsets, func(have *networkingapi.Subset) bool { return have.GetName() == s.GetName() }) {
				merged.Spec.Subsets = append(merged.Spec.Subsets, s)
			}
		}
	}
	return merged
}

func olderFirst(a, b *metav1.ObjectMeta) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
