package why

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/lines"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// World is the objects of a mesh, and where they are written.
type World struct {
	Objects         []kube.Object
	NetworkPolicies []*networkingv1.NetworkPolicy
	// MeshConfig is the mesh configuration in YAML; nil is the default.
	MeshConfig []byte
	// Allocate is whether the control plane gives addresses to ServiceEntries that have none.
	Allocate bool
	// Files is whether objects come from files, so that what only a cluster gives them is made up.
	Files bool
	// Notes say what is to be known about all of it: objects that cannot be read, and what was assumed.
	Notes []string

	// secrets reads credentials of a mesh that runs; nil are those among the objects.
	secrets secretReader

	places map[string]place
	files  map[string]*lines.File
	// from has, for an object that was made for another, that one's key.
	from map[string]string
}

// place is where an object is written: its document's line, and how its fields begin in a List.
type place struct {
	file   string
	line   int
	prefix string
}

// NewWorld returns one without objects.
func NewWorld() *World {
	return &World{places: map[string]place{}, files: map[string]*lines.File{}, from: map[string]string{}}
}

// Ref names an object, or a field of it.
type Ref struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Field     string `json:"field,omitempty"`
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
}

// String is Kind namespace/name field (file:line).
func (r Ref) String() string {
	out := r.Kind + " " + strings.TrimPrefix(r.Namespace+"/"+r.Name, "/")
	if r.Field != "" {
		out += " " + r.Field
	}
	if r.File != "" {
		out += fmt.Sprintf(" (%s:%d)", r.File, r.Line)
	}
	return out
}

// kindOf is the kind, with its group where there are two of the name.
func kindOf(o kube.Object) string {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "Gateway" && gvk.Group == "networking.istio.io" {
		return "Gateway.networking.istio.io"
	}
	return gvk.Kind
}

func key(kind, namespace, name string) string {
	return kind + " " + strings.TrimPrefix(namespace+"/"+name, "/")
}

// Ref returns the reference to a field of an object; an empty field is the object itself.
func (w *World) Ref(kind, namespace, name, field string) *Ref {
	r := &Ref{Kind: kind, Namespace: namespace, Name: name, Field: field}
	k := key(kind, namespace, name)
	if owner, ok := w.from[k]; ok {
		kind, rest, _ := strings.Cut(owner, " ")
		ns, name, cut := strings.Cut(rest, "/")
		if !cut {
			ns, name = "", rest
		}
		if kind == "Gateway" || strings.HasPrefix(k, "Service ") {
			field = "" // nothing of it is written there
		} else if field != "" {
			field = "spec.template." + field
		}
		r = &Ref{Kind: kind, Namespace: ns, Name: name, Field: field}
		k = owner
	}
	p, ok := w.places[k]
	if !ok {
		return r
	}
	r.File, r.Line = p.file, p.line
	if f := w.files[p.file]; f != nil {
		if line := f.Line(p.line, p.prefix+field); line > 0 {
			r.Line = line
		}
	}
	return r
}

// Of is Ref for an object.
func (w *World) Of(o kube.Object, field string) *Ref {
	return w.Ref(kindOf(o), o.GetNamespace(), o.GetName(), field)
}

// labelField is the path of a label.
func labelField(name string) string { return "metadata.labels[" + name + "]" }

// put records where an object is written.
func (w *World) put(o metav1.Object, kind, file string, line int) {
	p := place{file: file, line: line}
	if f := w.files[file]; f != nil {
		p.prefix = f.Item(line, strings.TrimSuffix(kind, ".networking.istio.io"), o.GetNamespace(), o.GetName())
	}
	if k := key(kind, o.GetNamespace(), o.GetName()); w.places[k] == (place{}) {
		w.places[k] = p
	}
}

// Copy returns a world that may be changed without changing this one. Objects are shared, and must not be modified.
func (w *World) Copy() *World {
	out := *w
	out.Objects, out.NetworkPolicies, out.Notes = slices.Clone(w.Objects), slices.Clone(w.NetworkPolicies), slices.Clone(w.Notes)
	out.places, out.files, out.from = maps.Clone(w.places), maps.Clone(w.files), map[string]string{}
	return &out
}

// Adopt takes over where the objects of another world are written.
func (w *World) Adopt(other *World) {
	maps.Copy(w.places, other.places)
	maps.Copy(w.files, other.files)
	for _, n := range other.Notes {
		w.Notes = addOnce(w.Notes, n)
	}
}
