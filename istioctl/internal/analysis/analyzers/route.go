package analyzers

import (
	"cmp"
	"iter"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// apiRoute is a route of the Gateway API, of whichever kind.
type apiRoute struct {
	r         *analysis.Resource
	namespace string
	hostnames []gatewayv1.Hostname
	parents   []gatewayv1.ParentReference
	backends  []backend
	http      bool
}

// backend is what a route refers to, and where.
type backend struct {
	gatewayv1.BackendObjectReference
	field string
}

func apiRoutes(s *analysis.Snapshot) iter.Seq[apiRoute] {
	return func(yield func(apiRoute) bool) {
		for r := range s.Everything() {
			if route, ok := asRoute(r); ok && !yield(route) {
				return
			}
		}
	}
}

func asRoute(r *analysis.Resource) (out apiRoute, ok bool) {
	out = apiRoute{r: r, namespace: r.Namespace}
	add := func(i, j int, ref gatewayv1.BackendObjectReference) {
		out.backends = append(out.backends, backend{ref, at(at("spec.rules", i)+".backendRefs", j)})
	}
	switch o := r.Object.(type) {
	case *gatewayv1.HTTPRoute:
		out.hostnames, out.parents, out.http = o.Spec.Hostnames, o.Spec.ParentRefs, true
		for i, rule := range o.Spec.Rules {
			for j, b := range rule.BackendRefs {
				add(i, j, b.BackendObjectReference)
			}
			for j, f := range rule.Filters {
				if f.RequestMirror != nil {
					out.backends = append(out.backends, backend{f.RequestMirror.BackendRef, at(at("spec.rules", i)+".filters", j) + ".requestMirror.backendRef"})
				}
			}
		}
	case *gatewayv1.GRPCRoute:
		out.hostnames, out.parents, out.http = o.Spec.Hostnames, o.Spec.ParentRefs, true
		for i, rule := range o.Spec.Rules {
			for j, b := range rule.BackendRefs {
				add(i, j, b.BackendObjectReference)
			}
		}
	case *gatewayv1.TCPRoute:
		out.parents = o.Spec.ParentRefs
		for i, rule := range o.Spec.Rules {
			for j, b := range rule.BackendRefs {
				add(i, j, b.BackendObjectReference)
			}
		}
	case *gatewayv1.TLSRoute:
		out.hostnames, out.parents = o.Spec.Hostnames, o.Spec.ParentRefs
		for i, rule := range o.Spec.Rules {
			for j, b := range rule.BackendRefs {
				add(i, j, b.BackendObjectReference)
			}
		}
	case *gatewayv1.UDPRoute:
		out.parents = o.Spec.ParentRefs
		for i, rule := range o.Spec.Rules {
			for j, b := range rule.BackendRefs {
				add(i, j, b.BackendObjectReference)
			}
		}
	default:
		return out, false
	}
	return out, true
}

// text returns what an optional name points to.
func text[T ~string](p *T, otherwise string) string {
	if p == nil {
		return otherwise
	}
	return cmp.Or(string(*p), otherwise)
}

// parentHost returns the service that a route names as parent; ok is false for a parent that is none.
func parentHost(s *analysis.Snapshot, p gatewayv1.ParentReference, namespace string) (h *analysis.Host, ok bool) {
	namespace = text(p.Namespace, namespace)
	switch text(p.Kind, "Gateway") {
	case "Service":
		return s.Host(s.Ambient.Hostname(namespace, string(p.Name)), namespace), true
	case "ServiceEntry":
		return entryHost(s, namespace, string(p.Name)), true
	}
	return nil, false
}

// routeParents calls for each service that a route is attached to.
func (route apiRoute) services(s *analysis.Snapshot, each func(i int, p gatewayv1.ParentReference, h *analysis.Host)) {
	for i, p := range route.parents {
		if h, ok := parentHost(s, p, route.namespace); ok && h != nil {
			each(i, p, h)
		}
	}
}

// takes tells whether a listener of an object of the namespace own takes routes of another one.
func takes(s *analysis.Snapshot, own string, l gatewayv1.Listener, namespace string) bool {
	from := gatewayv1.NamespacesFromSame
	var selector *metav1.LabelSelector
	if l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil && l.AllowedRoutes.Namespaces.From != nil {
		from, selector = *l.AllowedRoutes.Namespaces.From, l.AllowedRoutes.Namespaces.Selector
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		ns, _, ok := analysis.Find[*corev1.Namespace](s, "", namespace)
		chosen, err := metav1.LabelSelectorAsSelector(selector)
		// Of a namespace that is not there nothing is known.
		return !ok || err == nil && chosen.Matches(labels.Set(ns.Labels))
	case gatewayv1.NamespacesFromSame:
		return own == namespace
	}
	return false
}
