package gateway

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// Groups and kinds that the Gateway API's references name.
const (
	groupGateway    = "gateway.networking.k8s.io"
	groupNetworking = "networking.istio.io"
	kindGateway     = "Gateway"
	kindHTTPRoute   = "HTTPRoute"
	kindGRPCRoute   = "GRPCRoute"
)

// routeObject is a route of the Gateway API, of any kind.
type routeObject struct {
	kind      string
	meta      *metav1.ObjectMeta
	parents   []gatewayv1.ParentReference
	hostnames []gatewayv1.Hostname
	http      []gatewayv1.HTTPRouteRule
	grpc      []gatewayv1.GRPCRouteRule
	// connections are the rules of a TLSRoute or a TCPRoute.
	connections []connectionRule
}

func httpObject(r *gatewayv1.HTTPRoute) routeObject {
	return routeObject{kind: kindHTTPRoute, meta: &r.ObjectMeta, parents: r.Spec.ParentRefs, hostnames: r.Spec.Hostnames, http: r.Spec.Rules}
}

func grpcObject(r *gatewayv1.GRPCRoute) routeObject {
	return routeObject{kind: kindGRPCRoute, meta: &r.ObjectMeta, parents: r.Spec.ParentRefs, hostnames: r.Spec.Hostnames, grpc: r.Spec.Rules}
}

// routeObjects gives both kinds, the oldest first.
func routeObjects(https []*gatewayv1.HTTPRoute, grpcs []*gatewayv1.GRPCRoute) []routeObject {
	out := make([]routeObject, 0, len(https)+len(grpcs))
	for _, r := range https {
		out = append(out, httpObject(r))
	}
	for _, r := range grpcs {
		out = append(out, grpcObject(r))
	}
	slices.SortStableFunc(out, func(a, b routeObject) int {
		return cmp.Or(older(a.meta, b.meta), strings.Compare(a.kind, b.kind))
	})
	return out
}

func (o routeObject) origin() route.Origin {
	return route.Origin{Group: groupGateway, Version: "v1", Kind: o.kind, Namespace: o.meta.Namespace, Name: o.meta.Name}
}

// rule is a rule of either kind, as the richer of the two has it.
type rule struct {
	path     *field.Path
	name     string
	matches  []route.Match
	filters  []gatewayv1.HTTPRouteFilter
	backends []gatewayv1.HTTPBackendRef
	timeouts *gatewayv1.HTTPRouteTimeouts
	retry    *gatewayv1.HTTPRouteRetry
	// persistence is what is asked for, session what becomes of it: without the path, which each match has its own.
	persistence *gatewayv1.SessionPersistence
	session     *route.Session
}

// rules translates the matches of all rules; a match that cannot be expressed is left out.
func (t *translation) rules(o routeObject) []rule {
	var out []rule
	at := field.NewPath("spec", "rules")
	add := func(i int, name *gatewayv1.SectionName, r rule) {
		r.path = at.Index(i)
		r.name = o.meta.Namespace + "." + o.meta.Name + "." + strconv.Itoa(i)
		if name != nil {
			r.name = o.meta.Namespace + "." + o.meta.Name + "." + string(*name)
		}
		out = append(out, r)
	}
	for i, in := range o.http {
		r := rule{filters: in.Filters, backends: in.BackendRefs, timeouts: in.Timeouts, retry: in.Retry, persistence: in.SessionPersistence}
		r.matches = t.httpMatches(o, at.Index(i), in.Matches)
		add(i, in.Name, r)
	}
	for i, in := range o.grpc {
		r := rule{filters: httpFilters(in.Filters), persistence: in.SessionPersistence}
		for _, b := range in.BackendRefs {
			r.backends = append(r.backends, gatewayv1.HTTPBackendRef{BackendRef: b.BackendRef, Filters: httpFilters(b.Filters)})
		}
		r.matches = t.grpcMatches(o, at.Index(i), in.Matches)
		add(i, in.Name, r)
	}
	return out
}

// httpFilters writes filters of a GRPCRoute as those of an HTTPRoute, of which they are a part.
func httpFilters(in []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	out := make([]gatewayv1.HTTPRouteFilter, 0, len(in))
	for _, f := range in {
		out = append(out, gatewayv1.HTTPRouteFilter{
			Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
		})
	}
	return out
}

// byPrecedence orders routes as the Gateway API says: an exact path, then the longest prefix, then a regular expression; then
// a method, then the most headers, then the most query parameters. The order of objects and rules decides the rest. What no method of gRPC
// is asked of comes last: every path of HTTPRoutes is at least the prefix "/".
func byPrecedence(routes []route.Route) {
	kind := func(r *route.Route) int {
		switch p := r.Match.Path; {
		case p.Kind == route.PathExact:
			return 3
		case p.Kind == route.PathRegex:
			return 1
		case p.Kind == route.PathAny && r.Origin.Kind == kindGRPCRoute:
			return 0
		}
		return 2
	}
	length := func(p route.Path) int {
		if p.Kind == route.PathAny {
			return 1
		}
		return len(p.Value)
	}
	slices.SortStableFunc(routes, func(a, b route.Route) int {
		am, ah := methodAndHeaders(a.Match)
		bm, bh := methodAndHeaders(b.Match)
		return cmp.Or(
			cmp.Compare(kind(&b), kind(&a)),
			cmp.Compare(length(b.Match.Path), length(a.Match.Path)),
			cmp.Compare(bm, am), cmp.Compare(bh, ah),
			cmp.Compare(len(b.Match.Query), len(a.Match.Query)),
		)
	})
}

func methodAndHeaders(m route.Match) (method, headers int) {
	for _, h := range m.Headers {
		if h.Name == ":method" {
			method++
		} else {
			headers++
		}
	}
	return
}
