package kube

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is one kind that Decode knows.
type Kind struct {
	// GVK is that of the Go type.
	GVK schema.GroupVersionKind
	// Resource is the name of the kind in paths: the plural in lower case.
	Resource string
	// Versions that are read into the Go type, that of GVK first.
	Versions []string
	// ClusterWide kinds have no namespace.
	ClusterWide bool
}

// Kinds returns all kinds that Decode knows, those that others refer to first.
func Kinds() []Kind {
	var out []Kind
	for _, k := range kinds() {
		out = append(out, Kind{GVK: k.gvk, Resource: plural(k.gvk.Kind), Versions: slices.Concat([]string{k.gvk.Version}, k.also), ClusterWide: k.clusterWide})
	}
	return out
}

// plural is that of the names of kinds, which are English words.
func plural(kind string) string {
	name := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(name, "y") && !strings.HasSuffix(name, "ay"):
		return strings.TrimSuffix(name, "y") + "ies"
	case strings.HasSuffix(name, "s"):
		return name + "es"
	}
	return name + "s"
}
