package l7

import (
	"fmt"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/jwt"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/rbac"
)

// Step is what one filter said of a request or of a connection.
type Step struct {
	// Filter is its name.
	Filter string
	// RBAC is set for policies; DryRun is whether they are not enforced.
	RBAC   *rbac.Verdict
	DryRun bool
	// Denied says why a token was not accepted, or that there was none; empty when the filter lets the request pass.
	Denied string
	// Limit is set for a policy of rate limits that concern the request; nothing was taken of them.
	Limit *LimitStep
	// Asks is the cluster of an authorizer outside that is asked, and is taken to have said yes.
	Asks string
}

// Explain is Decide, with what the filters that were asked have said.
func (c *Config) Explain(d *Decision, ch *Chain, r *Request, now time.Time, rnd Rand) []Step {
	var steps []Step
	d.trace = &steps
	c.Decide(d, ch, r, now, rnd)
	d.trace = nil
	return steps
}

// Explain tells what the network filters of the chain say of a connection. Admit decides the same.
func (ch *Chain) Explain(conn *Conn) []Step {
	var out []Step
	for _, f := range ch.rbac {
		out = appendRBAC(out, "envoy.filters.network.rbac", f.ExplainConn, conn)
	}
	return out
}

func appendRBAC[T any](out []Step, name string, explain func(T) (enforced, shadow *rbac.Verdict), of T) []Step {
	enforced, shadow := explain(of)
	if enforced != nil {
		out = append(out, Step{Filter: name, RBAC: enforced})
	}
	if shadow != nil {
		out = append(out, Step{Filter: name, RBAC: shadow, DryRun: true})
	}
	return out
}

func (d *Decision) noteRBAC(name string, f *rbac.Filter, r *Request) {
	if d.trace != nil {
		*d.trace = appendRBAC(*d.trace, name, f.Explain, &r.Info)
	}
}

func (d *Decision) noteJWT(name string, deny *jwt.Denial) {
	if d.trace == nil {
		return
	}
	s := Step{Filter: name}
	if deny != nil {
		s.Denied = fmt.Sprintf("%d %s", deny.Status, deny.Body)
	}
	*d.trace = append(*d.trace, s)
}

// Targets are the clusters that a route forwards to, with their weights; none for a route that answers itself.
func (rt *Route) Targets() []WeightedCluster {
	f := rt.forward
	switch {
	case f == nil:
		return nil
	case len(f.weighted) == 0:
		return []WeightedCluster{{Cluster: f.cluster, Weight: 1}}
	}
	var out []WeightedCluster
	for i := range f.weighted {
		out = append(out, WeightedCluster{Cluster: f.weighted[i].cluster, Weight: uint32(f.weighted[i].weight)})
	}
	return out
}

// Answers is the status that a route answers itself: of a direct response or a redirect; 0 for a route that forwards.
func (rt *Route) Answers() int {
	switch {
	case rt.direct != nil:
		return rt.direct.Status
	case rt.redirect != nil:
		return rt.redirect.status
	}
	return 0
}

// ByChance is whether which requests match is drawn.
func (rt *Route) ByChance() bool { return rt.match.partial }

// Miss is a route that does not match a request.
type Miss struct {
	Route *Route
	// What does not match: "path", "headers", "query parameters", "chance", "client" or "gRPC".
	What string
	// Wanted is the path that the route takes.
	Wanted string
}

// Misses tells, for a request for which Decide has found no route, why each route of its virtual host does not match. ok is false when
// there is no virtual host for its authority.
func (c *Config) Misses(ch *Chain, r *Request) (misses []Miss, ok bool) {
	h := ch.HTTP
	if h == nil {
		return nil, false
	}
	routes := h.Inline
	if routes == nil {
		routes = c.Routes[h.RouteConfig]
	}
	if routes == nil {
		return nil, false
	}
	vh := routes.find(r.Head.Authority, &r.Scratch)
	if vh == nil {
		return nil, false
	}
	path := exchange.PathOnly(r.Head.Path)
	for _, rt := range vh.routes {
		if !rt.match.matches(r, path) {
			misses = append(misses, Miss{Route: rt, What: rt.match.fails(r, path), Wanted: rt.match.wanted()})
		}
	}
	return misses, true
}

// fails names the parts that do not match: those without which the rest would.
func (m *routeMatch) fails(r *Request, path string) string {
	var out []string
	without := func(what string, change func(*routeMatch)) {
		alone := routeMatch{kind: pathPrefix}
		change(&alone)
		if !alone.matches(r, path) {
			out = append(out, what)
		}
	}
	without("path", func(a *routeMatch) { a.kind, a.connect, a.text, a.fold, a.re = m.kind, m.connect, m.text, m.fold, m.re })
	without("headers", func(a *routeMatch) { a.headers = m.headers })
	without("query parameters", func(a *routeMatch) { a.queries = m.queries })
	without("chance", func(a *routeMatch) { a.chance, a.partial = m.chance, m.partial })
	without("gRPC", func(a *routeMatch) { a.grpc = m.grpc })
	without("client", func(a *routeMatch) { a.metadata, a.state = m.metadata, m.state })
	return strings.Join(out, ", ")
}

// wanted is the path that is matched, as people write it.
func (m *routeMatch) wanted() string {
	switch m.kind {
	case pathExact:
		return "= " + m.text
	case pathRegex:
		return "~ " + m.re.String()
	case pathSegments, pathPrefix:
		return m.text + "*"
	case pathConnect:
		return "CONNECT"
	}
	return ""
}
