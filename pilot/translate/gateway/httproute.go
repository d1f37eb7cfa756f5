package gateway

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// unknownCluster takes the share of backends that cannot be used; a route that names it answers 500 for clusters that are missing.
const unknownCluster = "UnknownService"

// apiRoutes translates the rules of a route of the Gateway API. clients is set when it concerns the clients of one namespace only.
func (t *translation) apiRoutes(o routeObject, clients string) []route.Route {
	var out []route.Route
	for _, r := range t.rules(o) {
		if r.sticky {
			t.problem(o.origin(), r.path.Child("sessionPersistence"), "session persistence is not supported")
		}
		out = append(out, t.rule(o, r, clients)...)
	}
	return out
}

// rule gives one route per match.
func (t *translation) rule(o routeObject, r rule, clients string) []route.Route {
	does, ok := t.filters(o, r.path, r.filters)
	base := route.Route{Name: r.name, Origin: o.origin(), Request: does.request, Response: does.response, CORS: does.cors}
	var pathRewrite *gatewayv1.HTTPPathModifier
	if does.rewrite != nil {
		pathRewrite = does.rewrite.Path
	}
	host, port := o.meta.Name, t.port
	refuse := route.Route{Name: r.name, Origin: o.origin(), Direct: &route.Direct{Status: http.StatusInternalServerError}}
	switch {
	case !ok:
		base = refuse
	case does.redirect != nil:
	default:
		forward, backendRewrite, single := t.backends(o, r)
		if forward == nil {
			base = refuse
			base.CORS = does.cors
			break
		}
		if does.authority != "" {
			forward.Rewrite.Authority = does.authority
		}
		if backendRewrite != nil {
			pathRewrite = backendRewrite
		}
		forward.Mirrors = append(does.mirrors, forward.Mirrors...)
		base.Forward = forward
		if single != nil {
			host, port = single.host, single.port
		}
	}
	var out []route.Route
	for _, m := range r.matches {
		one := base
		one.Match = m
		one.Match.SourceNamespace = clients
		one.Decorator = route.Operation(host, strconv.FormatUint(uint64(port), 10), m.Path)
		switch {
		case base.Forward != nil:
			forward := *base.Forward
			rewrite := rewriteFor(pathRewrite, m.Path)
			forward.Rewrite.Prefix, forward.Rewrite.Regex = rewrite.Prefix, rewrite.Regex
			one.Forward = &forward
		case base.Direct == nil:
			one.Redirect = t.redirectFor(does.redirect, m.Path)
		}
		out = append(out, one)
	}
	return out
}

// backends translates where a rule sends requests; nil when there is nowhere to send them. A path rewrite of the only backend is
// the rule's.
func (t *translation) backends(o routeObject, r rule) (*route.Forward, *gatewayv1.HTTPPathModifier, *destinationTarget) {
	out := &route.Forward{Retry: t.apiRetry(o, r)}
	t.apiTimeouts(o, r, out)
	var rewrite *gatewayv1.HTTPPathModifier
	var last destinationTarget
	var usable uint64
	for i, b := range r.backends {
		path := r.path.Child("backendRefs").Index(i)
		weight := uint32(1)
		if b.Weight != nil {
			weight = uint32(max(*b.Weight, 0))
		}
		to, ok := t.backend(o, path, b.BackendObjectReference)
		does, good := t.filters(o, path, b.Filters)
		onlyOne := len(r.backends) == 1
		if good && (does.redirect != nil || does.cors != nil || !onlyOne && (len(does.mirrors) > 0 || does.rewrite != nil && does.rewrite.Path != nil)) {
			t.problem(o.origin(), path.Child("filters"), "of a backend's filters only changes of headers and of the host can be applied")
			good = false
		}
		if !ok || !good {
			out.MissingIs500 = true
			out.Targets = append(out.Targets, route.Target{Cluster: unknownCluster, Weight: weight})
			continue
		}
		if onlyOne {
			out.Mirrors = does.mirrors
			if does.rewrite != nil {
				rewrite = does.rewrite.Path
			}
		}
		out.Targets = append(out.Targets, route.Target{
			Cluster: to.cluster, Weight: weight, Host: does.authority, Request: does.request, Response: does.response,
		})
		if weight > 0 {
			usable += uint64(weight)
			out.Hash = addHash(out.Hash, t.hash(to))
		}
		last = to
	}
	if usable == 0 {
		return nil, nil, nil
	}
	if len(r.backends) == 1 {
		return out, rewrite, &last
	}
	return out, nil, nil
}

func (t *translation) apiTimeouts(o routeObject, r rule, out *route.Forward) {
	if r.timeouts == nil {
		return
	}
	path := r.path.Child("timeouts")
	out.Timeout = t.apiDuration(o, path.Child("request"), r.timeouts.Request)
	perTry := t.apiDuration(o, path.Child("backendRequest"), r.timeouts.BackendRequest)
	if perTry == 0 {
		return
	}
	if out.Retry == nil {
		// Without retries the only try is the whole request.
		if out.Timeout == 0 || perTry < out.Timeout {
			out.Timeout = perTry
		}
		return
	}
	out.Retry.PerTryTimeout = perTry
}

func (t *translation) apiDuration(o routeObject, path *field.Path, in *gatewayv1.Duration) time.Duration {
	if in == nil {
		return 0
	}
	d, err := time.ParseDuration(string(*in))
	if err != nil || d < 0 {
		t.problem(o.origin(), path, "%q is no duration", *in)
		return 0
	}
	return d
}

// apiRetry: a rule that says nothing has the mesh's default.
func (t *translation) apiRetry(o routeObject, r rule) *route.Retry {
	path := r.path.Child("retry")
	if r.retry == nil {
		return t.retry(o.origin(), path, nil)
	}
	out := route.DefaultRetry()
	if r.retry.Attempts != nil {
		if *r.retry.Attempts <= 0 {
			return nil
		}
		out.Attempts = uint32(min(*r.retry.Attempts, 1<<20))
	}
	if len(r.retry.Codes) > 0 {
		out.On, out.Codes = slices.DeleteFunc(out.On, func(on string) bool { return strings.HasPrefix(on, "retriable-") }), nil
		for i, code := range r.retry.Codes {
			if code < 400 || code > 599 {
				t.problem(o.origin(), path.Child("codes").Index(i), "%d is no code of an error", code)
				continue
			}
			out.Codes = append(out.Codes, uint32(code))
		}
	}
	out.Backoff = t.apiDuration(o, path.Child("backoff"), r.retry.Backoff)
	return out
}

// serviceRoutes are the routes of the Gateway API whose parent is the service. Those of other namespaces concern only the clients
// there, and come first; for them nothing else counts. found is whether there are any for all clients.
func (t *translation) serviceRoutes(in WaypointInput) (routes []route.Route, found bool) {
	var all []route.Route
	consumers := map[string][]route.Route{}
	var namespaces []string
	for _, o := range routeObjects(in.HTTPRoutes, in.GRPCRoutes) {
		if !t.parentOf(in, o) {
			continue
		}
		if o.meta.Namespace == in.Service.Namespace || o.meta.Namespace == in.Namespace {
			found = true
			all = append(all, t.apiRoutes(o, "")...)
			continue
		}
		if consumers[o.meta.Namespace] == nil {
			namespaces = append(namespaces, o.meta.Namespace)
		}
		consumers[o.meta.Namespace] = append(consumers[o.meta.Namespace], t.apiRoutes(o, o.meta.Namespace)...)
	}
	slices.Sort(namespaces)
	for _, ns := range namespaces {
		byPrecedence(consumers[ns])
		routes = append(routes, consumers[ns]...)
		routes = append(routes, route.Route{
			Name: "no-route", Match: route.Match{SourceNamespace: ns}, Direct: &route.Direct{Status: http.StatusNotFound},
		})
	}
	byPrecedence(all)
	return append(routes, all...), found
}
