package registry

import (
	"maps"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// place is what all workloads of a namespace depend on, put together: there are many workloads, and each thing that one depends on
// costs memory.
type place struct {
	name      string
	namespace *corev1.Namespace // nil if there is none
	ours      bool              // part of the mesh
	mesh      ambient.Mesh
	peerAuths []*securityv1.PeerAuthentication
	// Labels by whose values services, policies of the namespace and policies of the root namespace are found; sorted. A workload
	// need not be looked for under its other labels.
	serviceLabels, policyLabels, rootLabels []string
	// named is whether slices of the namespace name pods.
	named bool
}

func (p place) key() string { return p.name }

func samePlace(a, b place) bool {
	return a.namespace == b.namespace && a.ours == b.ours && a.named == b.named && a.mesh.Equal(b.mesh) && slices.Equal(a.peerAuths, b.peerAuths) &&
		slices.Equal(a.serviceLabels, b.serviceLabels) && slices.Equal(a.policyLabels, b.policyLabels) && slices.Equal(a.rootLabels, b.rootLabels)
}

// derivePlaces makes those of the namespaces that exist.
func (r *Registry) derivePlaces() {
	r.labels.services = coll.NewIndex(r.serviceList, func(s *ambient.Service) []string { return namespaceIf(s.Proto.Namespace, len(s.Selector) > 0) })
	r.labels.policies = coll.NewIndex(r.policyList, func(p *ambient.Policy) []string { return namespaceIf(p.Namespace, len(p.Selector) > 0) })
	r.slicesNaming = coll.NewIndex(r.slices, func(s *discoveryv1.EndpointSlice) []string {
		return namespaceIf(s.Namespace, len(ambient.NamedPods(s)) > 0)
	})
	r.slicesByPod = coll.NewIndex(r.slices, func(s *discoveryv1.EndpointSlice) []string {
		out := ambient.NamedPods(s)
		for i, pod := range out {
			out[i] = s.Namespace + "/" + pod
		}
		return out
	})
	r.places = coll.Map("places", r.namespaces, place.key, func(f coll.Fetch, n *corev1.Namespace) (place, bool) {
		return r.placeOf(f, n.Name), true
	}, coll.WithEqual(samePlace))
}

// place returns that of a namespace, which may not exist.
func (r *Registry) place(f coll.Fetch, namespace string) place {
	if p, ok := coll.FetchOne(f, r.places, namespace); ok {
		return p
	}
	return r.placeOf(f, namespace)
}

func (r *Registry) placeOf(f coll.Fetch, namespace string) place {
	p := place{name: namespace}
	if p.namespace, p.ours = r.namespace(f, namespace); !p.ours {
		return p
	}
	p.mesh = r.meshFor(f)
	p.peerAuths = r.peerAuthsOf(f, p.mesh, namespace)
	p.serviceLabels = labelsOf(coll.FetchIndex(f, r.labels.services, namespace), func(s *ambient.Service) map[string]string { return s.Selector })
	p.named = len(coll.FetchIndex(f, r.slicesNaming, namespace)) > 0
	selector := func(p *ambient.Policy) map[string]string { return p.Selector }
	p.policyLabels = labelsOf(coll.FetchIndex(f, r.labels.policies, namespace), selector)
	if namespace != p.mesh.RootNamespace {
		p.rootLabels = labelsOf(coll.FetchIndex(f, r.labels.policies, p.mesh.RootNamespace), selector)
	}
	return p
}

// labelsOf are the labels by which selectors are indexed.
func labelsOf[T any](list []T, selector func(T) map[string]string) []string {
	set := map[string]struct{}{}
	for _, o := range list {
		set[indexLabel(selector(o))] = struct{}{}
	}
	return slices.Sorted(maps.Keys(set))
}

// found looks under those of the labels that selectors are indexed by.
func found[T any](f coll.Fetch, index coll.Index[T, string], namespace string, names []string, set map[string]string) (out []T) {
	for _, name := range names {
		if value, ok := set[name]; ok {
			out = append(out, coll.FetchIndex(f, index, labelKey(namespace, name, value))...)
		}
	}
	return out
}

// surroundings is what a workload of a namespace depends on; false when the namespace is not part of the mesh.
func (r *Registry) surroundings(f coll.Fetch, namespace, node string) (ambient.Surroundings, bool) {
	p := r.place(f, namespace)
	if !p.ours {
		return ambient.Surroundings{}, false
	}
	in := ambient.Surroundings{
		Mesh:      p.mesh,
		Namespace: p.namespace,
		PeerAuths: p.peerAuths,
		Waypoints: r.waypointsFor(f),
		Services: func(set map[string]string) []*ambient.Service {
			return found(f, r.bySelector.services, namespace, p.serviceLabels, set)
		},
		Policies: func(set map[string]string) []*ambient.Policy {
			return append(found(f, r.bySelector.policies, namespace, p.policyLabels, set),
				found(f, r.bySelector.policies, p.mesh.RootNamespace, p.rootLabels, set)...)
		},
	}
	if p.named {
		in.Named = func(pod string) []ambient.NamedSlice { return r.namedSlices(f, namespace, pod) }
	}
	if node != "" {
		in.Node, _ = coll.FetchOne(f, r.nodes, node)
	}
	return in, true
}

// namedSlices are those that name a pod, whose Services are known.
func (r *Registry) namedSlices(f coll.Fetch, namespace, pod string) (out []ambient.NamedSlice) {
	for _, slice := range coll.FetchIndex(f, r.slicesByPod, namespace+"/"+pod) {
		if s, ok := coll.FetchOne(f, r.serviceList, namespace+"/"+r.meshFor(f).Hostname(namespace, slice.Labels[discoveryv1.LabelServiceName])); ok && s.Entry == "" {
			out = append(out, ambient.NamedSlice{Slice: slice, Service: s})
		}
	}
	return out
}
