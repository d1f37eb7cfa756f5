package app

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// both gives everything to two sinks.
type both [2]kube.Sink

// Apply implements kube.Sink.
func (b both) Apply(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName) {
	for _, s := range b {
		s.Apply(gvk, upserts, deletes)
	}
}

// Synced implements kube.Sink.
func (b both) Synced() {
	for _, s := range b {
		s.Synced()
	}
}
