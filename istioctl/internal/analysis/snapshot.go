package analysis

import (
	"cmp"
	"iter"
	"reflect"
	"slices"

	meshapi "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Input is what a snapshot is made of.
type Input struct {
	Resources []*Resource
	// Problems were found when the resources were read.
	Problems []Problem
	// Live is whether a mesh was read: only then does what is missing run nowhere.
	Live bool
	// Unread are the kinds that could not be read, with the reason: nothing is said to be missing of them.
	Unread map[string]error
	// CRDs that are installed: their bundle's version, by name.
	CRDs map[string]CRD
	Mesh *meshapi.MeshConfig
	// IstioNamespace is that of the control plane.
	IstioNamespace string
}

// CRD is a custom resource definition.
type CRD struct {
	// Bundle is the version of the Gateway API that it is part of, empty for others.
	Bundle string
	// Served are the versions.
	Served []string
}

// Problem is what a schema check found in one resource.
type Problem struct {
	Resource *Resource
	kube.ObjectError
}

// Snapshot is a mesh's configuration at one moment. It does not change.
type Snapshot struct {
	Input
	Ambient ambient.Mesh
	// Configured is whether the mesh's configuration was read, so that what it does not have is not there.
	Configured bool

	byType    map[reflect.Type][]*Resource
	byName    map[key]*Resource
	hosts     map[string][]*Host
	workloads map[string][]*Workload
	waypoints map[string]*ambient.Waypoint
	bound     map[string][]*Host // of workloads, by namespace
}

type key struct {
	kind            reflect.Type
	namespace, name string
}

// domain is the suffix of services' names.
const domain = "cluster.local"

// NewSnapshot returns the snapshot of what was read. Of several resources of one name the last counts.
func NewSnapshot(in Input) *Snapshot {
	s := &Snapshot{Input: in, byType: map[reflect.Type][]*Resource{}, byName: map[key]*Resource{}}
	s.Configured = s.Mesh != nil
	if s.Mesh == nil {
		s.Mesh = &meshapi.MeshConfig{}
	}
	s.IstioNamespace = cmp.Or(s.IstioNamespace, "istio-system")
	s.Ambient = ambient.Mesh{
		ClusterID: "Kubernetes", TrustDomain: cmp.Or(s.Mesh.GetTrustDomain(), domain), TrustDomainAliases: s.Mesh.GetTrustDomainAliases(),
		RootNamespace: cmp.Or(s.Mesh.GetRootNamespace(), s.IstioNamespace), Domain: domain,
	}
	if v, err := ambient.NewEntryVisibility(s.Mesh.GetServiceEntryVisibility()); err == nil { // whoever read it has refused a wrong one
		s.Ambient.Visibility = v
	}
	for _, r := range in.Resources {
		s.byName[key{reflect.TypeOf(r.Object), r.Namespace, r.Name}] = r
	}
	for k, r := range s.byName {
		s.byType[k.kind] = append(s.byType[k.kind], r)
	}
	for _, list := range s.byType {
		slices.SortFunc(list, func(a, b *Resource) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	s.Resources = nil
	s.indexHosts()
	s.indexWorkloads()
	s.indexWaypoints()
	return s
}

// All returns the objects of a type, by namespace and name.
func All[T kube.Object](s *Snapshot) iter.Seq2[*Resource, T] {
	return func(yield func(*Resource, T) bool) {
		for _, r := range s.byType[reflect.TypeFor[T]()] {
			if !yield(r, r.Object.(T)) {
				return
			}
		}
	}
}

// Find returns an object, and whether there is one.
func Find[T kube.Object](s *Snapshot, namespace, name string) (o T, r *Resource, ok bool) {
	r, ok = s.byName[key{reflect.TypeFor[T](), namespace, name}]
	if ok {
		o = r.Object.(T)
	}
	return o, r, ok
}

// Has returns whether there are objects of a type.
func Has[T kube.Object](s *Snapshot) bool { return len(s.byType[reflect.TypeFor[T]()]) > 0 }

// Everything returns all resources, in no order.
func (s *Snapshot) Everything() iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for _, list := range s.byType {
			for _, r := range list {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// Known is whether all objects of a kind are in the snapshot, so that one that is not there does not exist.
func (s *Snapshot) Known(kind string) bool { return s.Unread[kind] == nil }
