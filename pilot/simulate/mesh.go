package simulate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"
	meshapi "istio.io/api/mesh/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pilot/internal/meshconfig"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Type URLs of what a Mesh serves.
const (
	AddressType       = registry.AddressType
	AuthorizationType = registry.AuthorizationType
	ListenerType      = registry.ListenerType
	ClusterType       = registry.ClusterType
	RouteType         = registry.RouteType
	EndpointType      = registry.EndpointType
)

// Settings are what a control plane is started with. The zero value is its defaults.
type Settings struct {
	// MeshConfig is the mesh configuration in YAML, as the ConfigMap istio has it.
	MeshConfig []byte
	// ClusterID, Network and Domain are the cluster's.
	ClusterID, Network, Domain string
	// Allocate gives addresses to ServiceEntries that have none, as a control plane does that has no API server.
	Allocate bool
	// KeySets are documents that tokens are verified with, by the address they would be fetched from.
	KeySets map[string]string
}

// Resource is what a proxy would be sent.
type Resource struct {
	Type, Name string
	Any        *anypb.Any
}

// Status is what would become of one object: the content of its status field.
type Status = registry.Status

// Mesh is a control plane's view of a set of objects.
type Mesh struct {
	registry *registry.Registry
	feed     *collector
	mesh     ambient.Mesh
	config   *meshapi.MeshConfig
}

// New translates objects. Objects of kinds that the control plane does not read are left aside. The objects are shared, and must not be
// modified any more.
func New(settings Settings, objects []kube.Object) (*Mesh, error) {
	parsed, err := meshconfig.Parse(settings.MeshConfig)
	if err != nil {
		return nil, err
	}
	mesh := parsed.Mesh(cmp.Or(settings.ClusterID, "Kubernetes"), settings.Network, cmp.Or(settings.Domain, "cluster.local"))
	mesh.Config = parsed.Proto
	options := []registry.Option{registry.WithOrigins()}
	if !settings.Allocate {
		options = append(options, registry.WithoutAllocation())
	}
	m := &Mesh{registry: registry.New(mesh, options...), feed: newCollector(), mesh: mesh.Mesh, config: parsed.Proto}
	for _, source := range slices.Sorted(maps.Keys(settings.KeySets)) {
		m.registry.SetKeySets(registry.KeySet{Source: source, Document: settings.KeySets[source]})
	}
	sink := m.registry.Sink(nil)
	byKind := map[schema.GroupVersionKind][]kube.Object{}
	seen := map[string]bool{}
	for _, o := range objects {
		gvk := o.GetObjectKind().GroupVersionKind()
		key := fmt.Sprintf("%s/%s/%s/%s", gvk.Group, gvk.Kind, o.GetNamespace(), o.GetName())
		if !seen[key] { // of two objects of one name the first counts, as in a directory
			seen[key] = true
			byKind[gvk] = append(byKind[gvk], o)
		}
	}
	for _, k := range kube.Kinds() {
		if upserts := byKind[k.GVK]; len(upserts) > 0 {
			sink.Apply(k.GVK, upserts, nil)
		}
	}
	sink.Synced()
	m.registry.PublishTo(m.feed)
	return m, nil
}

// Settings are those of translation.
func (m *Mesh) Settings() ambient.Mesh { return m.mesh }

// Config is the mesh configuration.
func (m *Mesh) Config() *meshapi.MeshConfig { return m.config }

// Ambient is what every ztunnel would be sent: workloads and services, and policies.
func (m *Mesh) Ambient() (addresses, policies []Resource) {
	return m.feed.global(AddressType), m.feed.global(AuthorizationType)
}

// Services are those of the mesh, by namespace and hostname.
func (m *Mesh) Services() []*ambient.Service { return m.registry.Services() }

// Workloads are those of the mesh, by uid.
func (m *Mesh) Workloads() []*ambient.Workload { return m.registry.Workloads() }

// Policies are those of the mesh, with what became of them at L4, by namespace and name.
func (m *Mesh) Policies() []*ambient.Policy { return m.registry.Policies() }

// Statuses are those of all objects.
func (m *Mesh) Statuses() []Status { return m.registry.Statuses() }

// Problems are those that the translation for the proxies asked for so far met, by "Kind namespace/name": "field: message".
func (m *Mesh) Problems() map[string][]string { return m.registry.Problems() }
