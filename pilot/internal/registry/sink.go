package registry

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Groups of the kinds.
const (
	groupGateway    = "gateway.networking.k8s.io"
	groupNetworking = "networking.istio.io"
	groupSecurity   = "security.istio.io"
	groupExtensions = "extensions.istio.io"
	groupTelemetry  = "telemetry.istio.io"
)

// input is the untyped door of one source collection.
type input struct {
	stage      func(upserts []kube.Object, deletes []types.NamespacedName)
	has        func(key string) bool
	markSynced func()
}

// source makes the collection of one kind. Objects are replaced, never modified: pointers tell them apart.
func source[T interface {
	comparable
	kube.Object
}](r *Registry, group, kind string) *coll.Static[T] {
	s := coll.NewStatic(r.graph, group+"/"+kind, objectKey[T], coll.WithEqual(func(a, b T) bool { return a == b }))
	in := input{
		markSynced: s.MarkSynced,
		has:        func(key string) bool { _, ok := s.Get(key); return ok },
		stage: func(upserts []kube.Object, deletes []types.NamespacedName) {
			typed := make([]T, 0, len(upserts))
			for _, o := range upserts {
				if t, ok := ambient.Reduce(o).(T); ok {
					typed = append(typed, t)
				}
			}
			keys := make([]string, 0, len(deletes))
			for _, d := range deletes {
				keys = append(keys, nameKey(d))
			}
			s.Stage(typed, keys)
		},
	}
	r.inputs[schema.GroupKind{Group: group, Kind: kind}] = in
	return s
}

func nameKey(n types.NamespacedName) string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// Sink returns what a source writes to. Changes take effect together when the source flushes; before it has synced, all of them
// at once. metrics may be nil.
func (r *Registry) Sink(metrics *Metrics) kube.Sink { return &sink{registry: r, metrics: metrics} }

type sink struct {
	registry *Registry
	metrics  *Metrics
	synced   bool
}

// Apply implements kube.Sink. Kinds that are not part of the registry are left aside.
func (s *sink) Apply(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName) {
	in, ok := s.registry.inputs[gvk.GroupKind()]
	if !ok {
		return
	}
	s.metrics.observe(gvk, upserts, deletes, in.has)
	in.stage(upserts, deletes)
}

// Flush implements kube.Flusher.
func (s *sink) Flush() {
	if s.synced {
		s.registry.graph.Flush()
	}
}

// Synced implements kube.Sink.
func (s *sink) Synced() {
	s.synced = true
	s.registry.graph.Flush()
	for _, in := range s.registry.inputs {
		in.markSynced()
	}
}
