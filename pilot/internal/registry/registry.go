// Package registry holds what the mesh consists of: objects from a source become collections, those become workloads,
// services and policies, and those become xDS resources, encoded once.
package registry

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// Mesh is the configuration that translation depends on. Its network is overridden by the system namespace's label.
type Mesh struct {
	ambient.Mesh
	// DiscoverySelectors choose the namespaces that are part of the mesh; none means all.
	DiscoverySelectors []*metav1.LabelSelector
	// Config is the whole configuration, for what proxies are configured with; nil is the default.
	Config *meshapi.MeshConfig
	// HTTP10 has waypoints and gateways answer clients of HTTP/1.0.
	HTTP10 bool
}

// Registry is the graph of collections. It is written by one Sink, and read by anybody.
type Registry struct {
	graph *coll.Graph
	alloc *allocator // nil if others give addresses
	// origins has filter chains say where they come from.
	origins bool

	// sources
	mesh        *coll.Static[Mesh]
	pods        *coll.Static[*ambient.Pod]
	services    *coll.Static[*corev1.Service]
	nodes       *coll.Static[*corev1.Node]
	namespaces  *coll.Static[*corev1.Namespace]
	slices      *coll.Static[*discoveryv1.EndpointSlice]
	gateways    *coll.Static[*gatewayv1.Gateway]
	classes     *coll.Static[*gatewayv1.GatewayClass]
	entries     *coll.Static[*networkingv1.ServiceEntry]
	endpoints   *coll.Static[*networkingv1.WorkloadEntry]
	policies    *coll.Static[*securityv1.AuthorizationPolicy]
	peerAuths   *coll.Static[*securityv1.PeerAuthentication]
	inputs      map[schema.GroupKind]input
	podsByNode  coll.Index[*ambient.Pod, string]
	gatewayPods coll.Index[*ambient.Pod, string] // ready ones, by their Gateway

	// derived
	effective   coll.Collection[ambient.Mesh]
	waypoints   coll.Collection[*ambient.Waypoint]
	serviceList coll.Collection[*ambient.Service]
	policyList  coll.Collection[*ambient.Policy]
	workloads   coll.Collection[*address]
	addresses   coll.Collection[*address] // workloads and services
	places      coll.Collection[place]
	authz       coll.Collection[delta.Resource]
	statuses    coll.Collection[Status]
	routing     routing
	limits      rateLimits
	proxies     proxies
	credentials credentials

	bySelector struct {
		services coll.Index[*ambient.Service, string]
		policies coll.Index[*ambient.Policy, string]
	}
	labels struct { // those with a selector, by namespace
		services coll.Index[*ambient.Service, string]
		policies coll.Index[*ambient.Policy, string]
	}
	// slicesByPod are the slices that name a pod, slicesNaming those of a namespace that name any.
	slicesByPod, slicesNaming coll.Index[*discoveryv1.EndpointSlice, string]
	entriesByHost             coll.Index[*networkingv1.ServiceEntry, string]

	feed        workloadFeed
	byEntry     coll.Index[*ambient.Service, string]
	byNamespace coll.Index[*securityv1.PeerAuthentication, string]
	nodeGroups  map[string]string // by node; guarded by the graph's lock
}

// Option changes what a registry does.
type Option func(*Registry)

// WithoutAllocation leaves it to others to give addresses to ServiceEntries: they are in the entries' status.
func WithoutAllocation() Option { return func(r *Registry) { r.alloc = nil } }

// WithOrigins has filter chains for connections say which object they come from: see envoy.OriginOf.
func WithOrigins() Option { return func(r *Registry) { r.origins = true } }

// WithLookups leaves it to others to read Secrets and to say who may: see FollowCredentials.
func WithLookups() Option { return func(r *Registry) { r.credentials.byLookup = true } }

// New returns an empty registry.
func New(mesh Mesh, options ...Option) *Registry {
	r := &Registry{graph: coll.NewGraph(), alloc: newAllocator(), inputs: map[schema.GroupKind]input{}, nodeGroups: map[string]string{}}
	for _, option := range options {
		option(r)
	}
	r.mesh = coll.NewStatic(r.graph, "meshConfig", func(Mesh) string { return coll.SingletonKey }, coll.WithEqual(func(a, b Mesh) bool {
		return a.Equal(b.Mesh) && proto.Equal(a.Config, b.Config) && slices.EqualFunc(a.DiscoverySelectors, b.DiscoverySelectors, sameSelector)
	}))
	r.pods = source[*ambient.Pod](r, "", "Pod")
	r.services = source[*corev1.Service](r, "", "Service")
	r.nodes = source[*corev1.Node](r, "", "Node")
	r.namespaces = source[*corev1.Namespace](r, "", "Namespace")
	r.slices = source[*discoveryv1.EndpointSlice](r, "discovery.k8s.io", "EndpointSlice")
	r.gateways = source[*gatewayv1.Gateway](r, groupGateway, "Gateway")
	r.classes = source[*gatewayv1.GatewayClass](r, groupGateway, "GatewayClass")
	r.entries = source[*networkingv1.ServiceEntry](r, groupNetworking, "ServiceEntry")
	r.endpoints = source[*networkingv1.WorkloadEntry](r, groupNetworking, "WorkloadEntry")
	r.policies = source[*securityv1.AuthorizationPolicy](r, groupSecurity, "AuthorizationPolicy")
	r.peerAuths = source[*securityv1.PeerAuthentication](r, groupSecurity, "PeerAuthentication")
	r.newRouting()
	r.newCredentials(r.credentials.byLookup)
	r.proxies.scopes = coll.NewStatic(r.graph, "scopes", func(s scope) string { return s.key })
	r.proxies.scopes.MarkSynced()
	r.proxies.vantages = coll.NewStatic(r.graph, "vantages", func(v vantage) string { return v.key })
	r.proxies.vantages.MarkSynced()
	r.proxies.opened = map[string]int{}
	r.SetMesh(mesh)
	r.mesh.MarkSynced()
	r.derive()
	return r
}

func sameSelector(a, b *metav1.LabelSelector) bool {
	return metav1.FormatLabelSelector(a) == metav1.FormatLabelSelector(b)
}

// SetMesh replaces the configuration; what depends on it is computed again.
func (r *Registry) SetMesh(m Mesh) { r.mesh.Set(m) }

// WaitSynced blocks until all objects that existed at the start are in.
func (r *Registry) WaitSynced(ctx context.Context) error {
	if err := r.addresses.WaitSynced(ctx); err != nil {
		return err
	}
	return r.proxies.resources.WaitSynced(ctx)
}

// HasSynced reports whether all objects that existed at the start are in.
func (r *Registry) HasSynced() bool {
	return r.addresses.HasSynced() && r.proxies.resources.HasSynced()
}

// objectKey is namespace/name, or the name of what has no namespace.
func objectKey[T kube.Object](o T) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

// derive makes the derived collections, each after those it reads.
func (r *Registry) derive() {
	r.effective = coll.Singleton(r.graph, "mesh", func(f coll.Fetch) (ambient.Mesh, bool) {
		m, _ := coll.FetchOne(f, r.mesh, coll.SingletonKey)
		if ns, ok := coll.FetchOne(f, r.namespaces, m.RootNamespace); ok {
			m.Network = cmp.Or(ns.Labels["topology.istio.io/network"], m.Network)
		}
		return m.Mesh, true
	})
	r.gatewayPods = coll.NewIndex(r.pods, readyGateway)
	r.waypoints = coll.Map("waypoints", r.gateways, (*ambient.Waypoint).Key, func(f coll.Fetch, gw *gatewayv1.Gateway) (*ambient.Waypoint, bool) {
		class, _ := coll.FetchOne(f, r.classes, string(gw.Spec.GatewayClassName))
		w := ambient.NewWaypoint(r.meshFor(f), gw, class)
		return w, w != nil
	})
	r.deriveServices()
	r.derivePolicies()
	r.derivePlaces()
	r.deriveWorkloads()
	r.deriveResources()
	r.deriveRouting()
	r.deriveProxies()
	r.deriveStatuses()
	r.podsByNode = coll.NewIndex(r.pods, func(p *ambient.Pod) []string { return []string{p.Node} })
}

func (r *Registry) meshFor(f coll.Fetch) ambient.Mesh {
	m, _ := coll.FetchSingleton(f, r.effective)
	return m
}

// namespace returns the object, which may be missing, and whether the namespace is part of the mesh.
func (r *Registry) namespace(f coll.Fetch, name string) (*corev1.Namespace, bool) {
	ns, _ := coll.FetchOne(f, r.namespaces, name)
	m, _ := coll.FetchOne(f, r.mesh, coll.SingletonKey)
	if len(m.DiscoverySelectors) == 0 || name == m.RootNamespace {
		return ns, true
	}
	var set labels.Set
	if ns != nil {
		set = ns.Labels
	}
	for _, s := range m.DiscoverySelectors {
		if selector, err := metav1.LabelSelectorAsSelector(s); err == nil && selector.Matches(set) {
			return ns, true
		}
	}
	return ns, false
}

func (r *Registry) waypointsFor(f coll.Fetch) ambient.Waypoints {
	return ambient.Waypoints{
		Get: func(key string) *ambient.Waypoint {
			w, _ := coll.FetchOne(f, r.waypoints, key)
			return w
		},
		Served: func(w *ambient.Waypoint) bool { return len(coll.FetchIndex(f, r.gatewayPods, w.Key())) > 0 },
	}
}

// readyGateway is the Gateway that a pod serves, for an index; none while the pod is not ready.
func readyGateway(p *ambient.Pod) []string {
	name := p.Labels["gateway.networking.k8s.io/gateway-name"]
	if name == "" || p.DeletionTimestamp != nil || !p.Ready {
		return nil
	}
	return []string{p.Namespace + "/" + name}
}

func (r *Registry) deriveServices() {
	kubernetes := coll.Map("services/kubernetes", r.services, (*ambient.Service).Key, func(f coll.Fetch, svc *corev1.Service) (*ambient.Service, bool) {
		ns, ours := r.namespace(f, svc.Namespace)
		if !ours {
			return nil, false
		}
		s := ambient.KubernetesService(r.meshFor(f), svc, ns, r.waypointsFor(f))
		return s, s != nil
	})
	var allocate func(entry, host string) []string
	if r.alloc != nil {
		allocate = r.alloc.addresses
	}
	r.entriesByHost = coll.NewIndex(r.entries, func(se *networkingv1.ServiceEntry) []string { return se.Spec.GetHosts() })
	entries := coll.FlatMap("services/entries", r.entries, (*ambient.Service).Key, func(f coll.Fetch, se *networkingv1.ServiceEntry) []*ambient.Service {
		return r.entryServices(f, se, kubernetes, allocate)
	})
	if r.alloc != nil {
		r.entries.Register(r.alloc.release)
	}
	r.serviceList = coll.Join("services", kubernetes, entries)
	r.bySelector.services = coll.NewIndex(r.serviceList, func(s *ambient.Service) []string {
		return selectorKey(s.Proto.Namespace, s.Selector)
	})
	r.byEntry = coll.NewIndex(r.serviceList, func(s *ambient.Service) []string { return []string{s.Entry} })
}

// selectorKey indexes a selector by one of its labels, the first by name: who carries that label is who may be selected.
func selectorKey(namespace string, selector map[string]string) []string {
	if len(selector) == 0 {
		return nil
	}
	first := indexLabel(selector)
	return []string{labelKey(namespace, first, selector[first])}
}

// indexLabel is the label by which a selector is found.
func indexLabel(selector map[string]string) string {
	return slices.Min(slices.Collect(maps.Keys(selector)))
}

func labelKey(namespace, name, value string) string {
	return namespace + "\x00" + name + "\x00" + value
}

func (r *Registry) derivePolicies() {
	own := coll.Map("policies/own", r.policies, (*ambient.Policy).Key, func(f coll.Fetch, ap *securityv1.AuthorizationPolicy) (*ambient.Policy, bool) {
		if _, ours := r.namespace(f, ap.Namespace); !ours {
			return nil, false
		}
		return ambient.AuthorizationPolicy(r.meshFor(f), ap), true
	})
	guards := coll.Map("policies/guards", r.serviceList, (*ambient.Policy).Key, func(f coll.Fetch, s *ambient.Service) (*ambient.Policy, bool) {
		p := ambient.GuardPolicy(r.meshFor(f), s)
		return p, p != nil
	})
	r.policyList = coll.Join("policies", own, guards)
	r.bySelector.policies = coll.NewIndex(r.policyList, func(p *ambient.Policy) []string {
		return selectorKey(p.Namespace, p.Selector)
	})
	r.byNamespace = coll.NewIndex(r.peerAuths, func(p *securityv1.PeerAuthentication) []string { return []string{p.Namespace} })
}

// peerAuthsOf returns those of the namespace and of the root namespace.
func (r *Registry) peerAuthsOf(f coll.Fetch, mesh ambient.Mesh, namespace string) []*securityv1.PeerAuthentication {
	out := coll.FetchIndex(f, r.byNamespace, mesh.RootNamespace)
	if namespace != mesh.RootNamespace {
		out = append(out, coll.FetchIndex(f, r.byNamespace, namespace)...)
	}
	return out
}

func (r *Registry) deriveWorkloads() {
	key := (*address).key
	pods := coll.Map("workloads/pods", r.pods, key, func(f coll.Fetch, pod *ambient.Pod) (*address, bool) {
		in, ours := r.surroundings(f, pod.Namespace, pod.Node)
		if !ours {
			return nil, false
		}
		w := r.workloadAddress(ambient.PodWorkload(in, pod))
		return w, w != nil
	})
	entries := coll.Map("workloads/entries", r.endpoints, key, func(f coll.Fetch, we *networkingv1.WorkloadEntry) (*address, bool) {
		in, ours := r.surroundings(f, we.Namespace, "")
		if !ours {
			return nil, false
		}
		w := r.workloadAddress(ambient.EntryWorkload(in, we))
		return w, w != nil
	})
	inline := coll.FlatMap("workloads/inline", r.entries, key, func(f coll.Fetch, se *networkingv1.ServiceEntry) []*address {
		in, ours := r.surroundings(f, se.Namespace, "")
		if !ours {
			return nil
		}
		return r.workloadAddresses(ambient.InlineWorkloads(in, se, coll.FetchIndex(f, r.byEntry, objectKey(se))))
	})
	endpoints := coll.FlatMap("workloads/slices", r.slices, key, func(f coll.Fetch, slice *discoveryv1.EndpointSlice) []*address {
		mesh := r.meshFor(f)
		name := slice.Labels[discoveryv1.LabelServiceName]
		s, ok := coll.FetchOne(f, r.serviceList, slice.Namespace+"/"+mesh.Hostname(slice.Namespace, name))
		if _, ours := r.namespace(f, slice.Namespace); !ours || !ok || s.Entry != "" {
			return nil
		}
		return r.workloadAddresses(ambient.SliceWorkloads(mesh, slice, s))
	})
	r.workloads = coll.Join("workloads", pods, entries, inline, endpoints)
}
