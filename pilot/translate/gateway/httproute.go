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
		r.session = t.routeSession(o, r)
		out = append(out, t.rule(o, r, clients)...)
	}
	return out
}

// rule gives one route per match, or several that share its requests by chance.
func (t *translation) rule(o routeObject, r rule, clients string) []route.Route {
	does, ok := t.filters(o, r.path, r.filters)
	parts := []part{{does: does}}
	switch {
	case !ok:
		parts = []part{{}}
	case does.redirect == nil:
		parts = t.parts(o, r, does)
	}
	var out []route.Route
	for _, m := range r.matches {
		m.SourceNamespace = clients
		for _, p := range parts {
			out = append(out, t.partRoute(o, r, p, m))
		}
	}
	return out
}

// part is a share of a rule's requests, and what is done with it. One with neither a redirect nor a forward is answered with 500.
type part struct {
	does    effects
	forward *route.Forward
	// single is the only backend.
	single *destinationTarget
	chance route.Share
}

// partRoute is a part for one match.
func (t *translation) partRoute(o routeObject, r rule, p part, m route.Match) route.Route {
	m.Chance = p.chance
	host, port := o.meta.Name, t.port
	if p.single != nil {
		host, port = p.single.host, p.single.port
	}
	out := route.Route{
		Name: r.name, Origin: o.origin(), Match: m, Request: p.does.request, Response: p.does.response, CORS: p.does.cors,
		Decorator: route.Operation(host, strconv.FormatUint(uint64(port), 10), m.Path),
	}
	switch {
	case p.does.redirect != nil:
		out.Redirect = t.redirectFor(p.does.redirect, m.Path)
	case p.forward != nil:
		forward := *p.forward
		if p.does.rewrite != nil {
			forward.Rewrite = rewriteFor(p.does.rewrite.Path, m.Path)
		}
		forward.Rewrite.Authority = p.does.authority
		forward.Session = sessionAt(r.session, m.Path)
		forward.Mirrors = p.does.mirrors
		out.Forward = &forward
	default:
		out.Direct = &route.Direct{Status: http.StatusInternalServerError}
	}
	return out
}

// parts says where a rule sends requests. Envoy splits requests among clusters that differ in their headers and their host; where
// filters of backends do more, each backend has a route of its own that takes its share.
func (t *translation) parts(o routeObject, r rule, does effects) []part {
	backends, sum, usable := t.backends(o, r)
	if sum == 0 || !usable && len(o.http) == 0 {
		return []part{{does: does}}
	}
	// Reported once for the rule, whatever the number of its parts.
	base := &route.Forward{Retry: t.apiRetry(o, r)}
	t.apiTimeouts(o, r, base)
	if !usable { // 500, but preflights are answered: Envoy's filters look at routes that forward only
		return []part{{does: does, forward: t.split(base, backends)}}
	}
	alone := len(backends) == 1 || slices.ContainsFunc(backends, func(b backend) bool { return b.ok && b.does.needsRoute() })
	if !alone {
		return []part{{does: does, forward: t.split(base, backends)}}
	}
	var out []part
	var before uint64
	for _, b := range backends {
		before += uint64(b.weight)
		p := part{does: does}
		if b.ok {
			p = part{does: does.then(b.does)}
			if p.does.redirect == nil {
				to := b.to
				p.single, p.forward = &to, t.split(base, []backend{{to: b.to, ok: true, weight: b.weight}})
			}
		}
		if before < sum {
			p.chance = max(1, route.Share(before*uint64(route.Everything)/sum))
		}
		out = append(out, p)
	}
	return out
}

// split sends requests to backends by their weights; the share of those that cannot be used is answered by 500.
func (t *translation) split(base *route.Forward, backends []backend) *route.Forward {
	out := *base
	out.Hash = nil
	for _, b := range backends {
		if !b.ok {
			out.MissingIs500 = true
			out.Targets = append(out.Targets, route.Target{Cluster: unknownCluster, Weight: b.weight})
			continue
		}
		out.Hash = addHash(out.Hash, t.hash(b.to))
		out.Targets = append(out.Targets, route.Target{
			Cluster: b.to.cluster, Weight: b.weight, Host: b.does.authority, Request: b.does.request, Response: b.does.response,
			Session: serviceSession(t.view.Service(b.to.host, t.namespace)),
		})
	}
	return &out
}

// backend is a backendRef that has a weight; ok is false when it cannot be used.
type backend struct {
	to     destinationTarget
	does   effects
	weight uint32
	ok     bool
}

// backends follows the references of a rule; usable is whether any of them can be.
func (t *translation) backends(o routeObject, r rule) (out []backend, sum uint64, usable bool) {
	for i, ref := range r.backends {
		path := r.path.Child("backendRefs").Index(i)
		b := backend{weight: 1}
		if ref.Weight != nil {
			b.weight = uint32(max(*ref.Weight, 0))
		}
		var good bool
		b.to, b.ok = t.backend(o, path, ref.BackendObjectReference)
		b.does, good = t.filters(o, path, ref.Filters)
		b.ok = good && (b.ok || b.does.redirect != nil)
		if b.weight > 0 {
			out, sum, usable = append(out, b), sum+uint64(b.weight), usable || b.ok
		}
	}
	return out, sum, usable
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
