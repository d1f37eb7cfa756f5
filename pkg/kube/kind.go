package kube

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is one kind that Decode knows.
type Kind struct {
	// GVK is that of the Go type.
	GVK schema.GroupVersionKind
	// Versions that are read into the Go type, that of GVK first.
	Versions []string
	// ClusterWide kinds have no namespace.
	ClusterWide bool
}

// Kinds returns all kinds that Decode knows, those that others refer to first.
func Kinds() []Kind {
	var out []Kind
	for _, k := range kinds() {
		out = append(out, Kind{GVK: k.gvk, Versions: slices.Concat([]string{k.gvk.Version}, k.also), ClusterWide: k.clusterWide})
	}
	return out
}
