package why

import (
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Model is what every proxy of a mesh has. It is not safe for concurrent use.
type Model struct {
	World *World
	Mesh  *simulate.Mesh
	State *l4.State

	objects map[string]kube.Object // by kind, namespace and name
	pods    map[string]*corev1.Pod // by namespace/name
	// inNamespace are pods, by name.
	inNamespace map[string][]*corev1.Pod
	byKind      map[string][]kube.Object
	// services and workloads as the control plane translates them, by the key that ztunnel knows them by.
	services  map[string]*ambient.Service
	workloads map[string]*ambient.Workload
	policies  map[string]*ambient.Policy
	proxies   map[string]*Proxy
	statuses  map[string][]condition
	// refused are resources that a ztunnel would refuse, with the reason.
	refused []string
}

// Proxy is what the proxies of a Gateway have.
type Proxy struct {
	simulate.Proxy
	Config *l7.Config
	// Refused are resources that it would refuse, with the reason.
	Refused []string
}

// Options are how a model is made of a world.
type Options struct {
	// Completer makes up what manifests do not have; nil takes objects as they are.
	Completer *simulate.Completer
	// KeySets verify tokens, by the address that they would be fetched from.
	KeySets map[string]string
	// ClusterID is the name of the cluster.
	ClusterID string
}

// NewModel computes what proxies have.
func NewModel(w *World, o Options) (*Model, error) {
	objects := w.Objects
	if o.Completer != nil {
		done := o.Completer.Complete(objects)
		objects = done.Objects
		for made, owner := range done.From {
			w.from[made] = owner
		}
		w.Notes = append(w.Notes, done.Notes...)
	}
	m := &Model{
		World: w, objects: map[string]kube.Object{}, pods: map[string]*corev1.Pod{}, byKind: map[string][]kube.Object{},
		services: map[string]*ambient.Service{}, workloads: map[string]*ambient.Workload{}, policies: map[string]*ambient.Policy{},
		proxies: map[string]*Proxy{}, inNamespace: map[string][]*corev1.Pod{},
	}
	for _, obj := range objects {
		kind := kindOf(obj)
		k := key(kind, obj.GetNamespace(), obj.GetName())
		if m.objects[k] != nil {
			continue
		}
		m.objects[k] = obj
		m.byKind[kind] = append(m.byKind[kind], obj)
		if p, ok := obj.(*corev1.Pod); ok {
			m.pods[p.Namespace+"/"+p.Name] = p
			m.inNamespace[p.Namespace] = append(m.inNamespace[p.Namespace], p)
		}
	}
	for _, pods := range m.inNamespace {
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	}
	var err error
	m.Mesh, err = simulate.New(simulate.Settings{
		MeshConfig: w.MeshConfig, Allocate: w.Files || w.Allocate, KeySets: o.KeySets, ClusterID: o.ClusterID,
	}, simulate.Mark(objects))
	if err != nil {
		return nil, err
	}
	m.index()
	return m, nil
}

// index makes ztunnel's state, and finds translations by what ztunnel calls them.
func (m *Model) index() {
	store := l4.NewStore()
	builder := l4.NewBuilder(store)
	addresses, policies := m.Mesh.Ambient()
	for _, r := range builder.ApplyAddresses(l4Resources(addresses), nil) {
		m.refused = append(m.refused, r.Name+": "+r.Reason)
	}
	for _, r := range builder.ApplyPolicies(l4Resources(policies), nil) {
		m.refused = append(m.refused, r.Name+": "+r.Reason)
	}
	m.State = store.Load()
	for _, s := range m.Mesh.Services() {
		m.services[s.Key()] = s
	}
	for _, w := range m.Mesh.Workloads() {
		m.workloads[w.Key()] = w
	}
	for _, p := range m.Mesh.Policies() {
		m.policies[p.Key()] = p
	}
}

func l4Resources(in []simulate.Resource) []l4.Resource {
	out := make([]l4.Resource, 0, len(in))
	for _, r := range in {
		out = append(out, l4.Resource{Name: r.Name, Any: r.Any})
	}
	return out
}

// Proxy returns what a proxy has, computed when it is first asked for.
func (m *Model) Proxy(p simulate.Proxy) *Proxy {
	id := p.String() + " " + p.Pod
	if p.Gateway == "" {
		id += fmt.Sprint(p.Labels)
	}
	if have := m.proxies[id]; have != nil {
		return have
	}
	out := Compile(p, m.Mesh.Proxy(p))
	m.proxies[id] = out
	m.statuses = nil // problems of its translation are known from now on
	return out
}

// Compile makes tables of what a proxy is sent, as it does itself.
func Compile(p simulate.Proxy, resources []simulate.Resource) *Proxy {
	out := &Proxy{Proxy: p}
	u := l7.Update{
		Listeners: map[string]*l7.Listener{}, Routes: map[string]*l7.Routes{}, Clusters: map[string]*l7.Cluster{}, Endpoints: map[string]*l7.Endpoints{},
	}
	for _, r := range resources {
		var err error
		switch r.Type {
		case simulate.ListenerType:
			err = take(r, &listenerv3.Listener{}, l7.CompileListener, u.Listeners)
		case simulate.ClusterType:
			err = take(r, &clusterv3.Cluster{}, l7.CompileCluster, u.Clusters)
		case simulate.RouteType:
			err = take(r, &routev3.RouteConfiguration{}, l7.CompileRoutes, u.Routes)
		case simulate.EndpointType:
			err = take(r, &endpointv3.ClusterLoadAssignment{}, l7.CompileEndpoints, u.Endpoints)
		}
		if err != nil {
			out.Refused = append(out.Refused, r.Name+": "+err.Error())
		}
	}
	out.Config = l7.NewConfig().With(u)
	return out
}

func take[T any, M proto.Message](r simulate.Resource, message M, compile func(M) (*T, error), into map[string]*T) error {
	err := proto.Unmarshal(r.Any.GetValue(), message)
	if err != nil {
		return err
	}
	into[r.Name], err = compile(message)
	if err != nil {
		delete(into, r.Name)
	}
	return err
}

// object returns one of a kind, or the zero value.
func object[T kube.Object](m *Model, kind, namespace, name string) T {
	o, _ := m.objects[key(kind, namespace, name)].(T)
	return o
}

func (m *Model) namespace(name string) *corev1.Namespace {
	return object[*corev1.Namespace](m, "Namespace", "", name)
}

func (m *Model) service(s *l4.Service) *ambient.Service {
	if s == nil {
		return nil
	}
	return m.services[s.String()]
}

// serviceRef is the object that a service comes from.
func (m *Model) serviceRef(s *ambient.Service, field string) *Ref {
	if s.Entry != "" {
		ns, name, _ := strings.Cut(s.Entry, "/")
		return m.World.Ref("ServiceEntry", ns, name, field)
	}
	return m.World.Ref("Service", s.Proto.Namespace, s.Proto.Name, field)
}

// workloadRef is the object that a workload comes from.
func (m *Model) workloadRef(w *l4.Workload, field string) *Ref {
	kind := "Pod"
	switch parts := strings.Split(w.UID, "/"); {
	case strings.Contains(w.UID, "/WorkloadEntry/"):
		kind = "WorkloadEntry"
	case strings.Contains(w.UID, "/ServiceEntry/"):
		kind = "ServiceEntry"
	case len(parts) > 2 && strings.Contains(w.UID, "/EndpointSlice/"):
		kind = "EndpointSlice"
	}
	return m.World.Ref(kind, w.Namespace, w.Name, field)
}

// podOf is the pod of a workload, nil when it is none.
func (m *Model) podOf(w *l4.Workload) *corev1.Pod {
	if w == nil || !strings.Contains(w.UID, "//Pod/") {
		return nil
	}
	return m.pods[w.Namespace+"/"+w.Name]
}

// all returns the objects of a kind.
func all[T kube.Object](m *Model, kind string) []T {
	var out []T
	for _, o := range m.byKind[kind] {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

func (m *Model) authorizationPolicy(namespace, name string) *securityv1.AuthorizationPolicy {
	return object[*securityv1.AuthorizationPolicy](m, "AuthorizationPolicy", namespace, name)
}

func (m *Model) virtualServices() []*networkingv1.VirtualService {
	return all[*networkingv1.VirtualService](m, "VirtualService")
}

func (m *Model) httpRoutes() []*gatewayv1.HTTPRoute { return all[*gatewayv1.HTTPRoute](m, "HTTPRoute") }

func (m *Model) deployments() []*appsv1.Deployment { return all[*appsv1.Deployment](m, "Deployment") }
