package simulate

import (
	"strconv"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// mark stands between the name of a route and where it is written. No name that people give has it.
const mark = "\u241f"

// Mark returns the objects with the routes of VirtualServices named by their place: proxies know a route by the name that it was given,
// if any, and people look for its line. It changes nothing but names. Unmark reads them.
func Mark(objects []kube.Object) []kube.Object {
	out := make([]kube.Object, 0, len(objects))
	for _, o := range objects {
		if vs, ok := o.(*networkingv1.VirtualService); ok {
			o = marked(vs)
		}
		out = append(out, o)
	}
	return out
}

func marked(vs *networkingv1.VirtualService) *networkingv1.VirtualService {
	vs = vs.DeepCopy()
	for i, h := range vs.Spec.GetHttp() {
		if h == nil {
			continue
		}
		place := mark + vs.Namespace + "/" + vs.Name + mark + "http[" + strconv.Itoa(i) + "]" + mark
		h.Name += place
		for j, m := range h.GetMatch() {
			if m != nil {
				m.Name += mark + "match[" + strconv.Itoa(j) + "]" + mark
			}
		}
	}
	return vs
}

// Place is where a route is written.
type Place struct {
	// Name that people gave it.
	Name string
	// Object is the namespace/name of the VirtualService, which may be one that another delegates to.
	Object string
	// Field is spec.http[1], Match spec.http[1].match[0] if there is one.
	Field, Match string
}

// Unmark reads the name of a route; ok is false for one that was not marked.
func Unmark(name string) (Place, bool) {
	parts := strings.Split(name, mark)
	if len(parts) < 4 {
		return Place{Name: name}, false
	}
	p := Place{}
	for i := 0; i+2 < len(parts); i++ {
		// Of several the last one is that of the object which is delegated to.
		if strings.Contains(parts[i], "/") && strings.HasPrefix(parts[i+1], "http[") {
			p.Object, p.Field = parts[i], "spec."+parts[i+1]
			p.Match = ""
		}
		if strings.HasPrefix(parts[i+1], "match[") {
			p.Match = p.Field + "." + parts[i+1]
		}
	}
	p.Name = parts[0]
	return p, p.Object != ""
}
