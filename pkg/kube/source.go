package kube

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Source delivers objects and their changes until the context ends.
type Source interface {
	// Run blocks. It returns nil when ctx ended, and an error when it cannot go on.
	Run(ctx context.Context, sink Sink) error
}

// Sink takes what a Source delivers. It is called from one goroutine.
type Sink interface {
	// Apply takes the changes of one kind. upserts are shared and must not be modified.
	Apply(gvk schema.GroupVersionKind, upserts []Object, deletes []types.NamespacedName)
	// Synced is called once, when all that existed at the start has been applied.
	Synced()
}

// Flusher may be implemented by a Sink: Flush ends a group of Apply calls that belong together.
type Flusher interface{ Flush() }
