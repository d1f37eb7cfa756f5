package analysis

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Resource is an object and where it comes from.
type Resource struct {
	Kind, Namespace, Name string
	GVK                   schema.GroupVersionKind
	// Object is nil for what could not be read as one.
	Object kube.Object
	// File it was read from; empty for an object of a mesh.
	File string
	// Line, from 1, of a field in the file; 0 of the empty field is not possible.
	line func(field string) int
	// Assumed objects are in every installation; nothing is said about them.
	Assumed bool
}

// NewResource returns the resource of an object of a mesh.
func NewResource(gvk schema.GroupVersionKind, o kube.Object) *Resource {
	return &Resource{Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), GVK: gvk, Object: o}
}

// InFile says where the resource was read; line returns the line of a field.
func (r *Resource) InFile(file string, line func(field string) int) *Resource {
	r.File, r.line = file, line
	return r
}

// Live is whether the object is in the mesh, so that its status counts.
func (r *Resource) Live() bool { return r.File == "" && !r.Assumed }

// String is Kind namespace/name.
func (r *Resource) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// FullName is namespace/name.
func (r *Resource) FullName() string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// Line returns the line of a field in the resource's file, or of what is nearest to it.
func (r *Resource) Line(field string) int {
	if r.line == nil {
		return 1
	}
	return r.line(field)
}
