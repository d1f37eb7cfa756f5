package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// translation is one proxy's view of the objects, and what was found wrong with them.
type translation struct {
	view    View
	mesh    Mesh
	cluster ClusterName
	// namespace is the proxy's.
	namespace string
	// waypoint tells a waypoint from a gateway.
	waypoint bool
	// port is the one that requests come to: of the service on a waypoint, of the server on a gateway; 0 for any. also are the
	// numbers of other servers whose requests come to the same port of the pods.
	port uint32
	also []uint32
	// tls is whether they come encrypted.
	tls      bool
	problems []route.Problem
	// unresolved are the backends that could not be used, of routes of the Gateway API.
	unresolved []unresolvedRef
}

func (t *translation) problem(origin route.Origin, path *field.Path, format string, args ...any) {
	t.note(route.Problem{Origin: origin, Field: path.String(), Message: fmt.Sprintf(format, args...)})
}

// missing reports a name of something that is not there.
func (t *translation) missing(origin route.Origin, path *field.Path, format string, args ...any) {
	t.note(route.Problem{Origin: origin, Field: path.String(), Message: fmt.Sprintf(format, args...), Missing: true})
}

func (t *translation) note(p route.Problem) {
	if !slices.Contains(t.problems, p) {
		t.problems = append(t.problems, p)
	}
}

// check reports an error, and whether there was none.
func (t *translation) check(origin route.Origin, path *field.Path, err error) bool {
	if err != nil {
		t.problem(origin, path, "%s", err.Error())
	}
	return err == nil
}

func virtualServiceOrigin(vs *networkingv1.VirtualService) route.Origin {
	return route.Origin{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService", Namespace: vs.Namespace, Name: vs.Name}
}

// older orders objects of the Gateway API as it decides conflicts: the older first, then by namespace and name.
func older(a, b *metav1.ObjectMeta) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// OlderClassic is what Istio orders its own objects by: the name goes before the namespace.
func OlderClassic(a, b *metav1.ObjectMeta) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
}

// inOrder sorts a copy as VirtualServices count for a proxy: those that only its namespace sees, those that are exported to it by name,
// and those that everybody sees; of each the oldest first.
func inOrder(all []*networkingv1.VirtualService, byDefault []string, namespace string) []*networkingv1.VirtualService {
	rank := func(vs *networkingv1.VirtualService) int {
		to := vs.Spec.GetExportTo()
		if len(to) == 0 {
			to = byDefault
		}
		switch {
		case len(to) == 0 || slices.Contains(to, "*"):
			return 2
		case vs.Namespace != namespace:
			return 1
		}
		return 0
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b *networkingv1.VirtualService) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), OlderClassic(&a.ObjectMeta, &b.ObjectMeta))
	})
	return out
}

// exported reports whether an object of the owner's namespace is visible in another.
func exported(exportTo, byDefault []string, owner, namespace string) bool {
	if len(exportTo) == 0 {
		exportTo = byDefault
	}
	if len(exportTo) == 0 {
		return true
	}
	for _, e := range exportTo {
		if e == "*" || e == namespace || e == "." && owner == namespace {
			return true
		}
	}
	return false
}

// hostMatches reports whether a host name, or a pattern like *.example.com, covers another.
func hostMatches(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	suffix, wildcard := strings.CutPrefix(pattern, "*")
	if !wildcard {
		return false
	}
	return len(host) > len(suffix) && strings.HasSuffix(strings.TrimPrefix(host, "*"), suffix)
}

// intersect gives the narrower of two host names, if one covers the other.
func intersect(a, b string) (string, bool) {
	switch {
	case hostMatches(a, b):
		return b, true
	case hostMatches(b, a):
		return a, true
	}
	return "", false
}

// narrower reports whether a is the more specific of two patterns that cover a host.
func narrower(a, b string) bool {
	aw, bw := strings.HasPrefix(a, "*"), strings.HasPrefix(b, "*")
	if aw != bw {
		return bw
	}
	return len(a) > len(b)
}

// validHost reports whether a host name, or a pattern, may be a virtual host's domain.
func validHost(host string) bool {
	if host == "*" {
		return true
	}
	rest := strings.TrimPrefix(host, "*.")
	if rest == "" || len(host) > 253 {
		return false
	}
	for i := range len(rest) {
		c := rest[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == ':':
		default:
			return false
		}
	}
	return true
}
