package l7

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/jwt"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/rbac"
)

// Decide decides about the request and changes its head as Envoy would before sending it upstream. ch.HTTP (or ch.Terminate's) must
// be set. d is overwritten; it may be used again, and so may its Mirrors.
//
// The stages are Envoy's: what is no request; forwarding headers; the route; upgrades; filters in their order; the router.
func (c *Config) Decide(d *Decision, ch *Chain, r *Request, now time.Time, rnd Rand) {
	routes, reply := c.enter(d, ch, r, now, rnd)
	if reply != nil {
		d.answer(reply)
		return
	}
	d.beginSpan(r, rnd)
	// Without a route the answer is that there is none.
	if !d.upgrade(r) && d.Route != nil {
		d.answer(replyNoUpgrade)
		return
	}
	c.proceed(d, routes, r, rnd, 0)
}

// proceed runs the filters from one on, and then, unless an authorizer has to be asked first, the router.
func (c *Config) proceed(d *Decision, routes *Routes, r *Request, rnd Rand, from int) {
	if reply := d.filter(routes, r, rnd, from); reply != nil {
		d.answer(reply)
		return
	}
	if d.Ask == nil {
		c.route(d, r, rnd)
		d.passSpan(r)
	}
}

// enter does what comes before the filters: the request is made one, and its route found. A reply refuses what is none.
func (c *Config) enter(d *Decision, ch *Chain, r *Request, now time.Time, rnd Rand) (*Routes, *Reply) {
	h := ch.HTTP
	if h == nil {
		h = ch.Terminate.HTTP
	}
	*d = Decision{manager: h, trace: d.trace, Mirrors: d.Mirrors[:0], IdleTimeout: h.StreamIdleTimeout, MaxDuration: h.MaxStreamDuration}
	r.Now, r.Random, r.Remote = now, rnd.Uint64(), unmapped(r.Conn.Source)
	mergeInline(r)
	r.OriginalPath, r.Path, r.Authority, r.GRPC = r.Head.Path, r.Head.Path, r.Head.Authority, r.Head.Path != "" && isGRPC(&r.Head.Header)
	d.resp.head = r.Head.Method == "HEAD"
	routes := h.Inline
	if routes == nil {
		routes = c.Routes[h.RouteConfig]
	}
	if reply := h.sane(r); reply != nil {
		// Envoy looks for a route for such an answer too, which it finds where the client says how it came.
		if routes != nil && r.Head.Header.Value("x-forwarded-proto") != "" {
			d.selectRoute(routes, r)
		}
		return nil, reply
	}
	r.Path, r.Authority = r.Head.Path, r.Head.Authority
	if routes == nil {
		h.mutateRequest(r, nil, rnd)
	} else {
		h.mutateRequest(r, routes.internalOnly, rnd)
		d.selectRoute(routes, r)
	}
	return routes, nil
}

// Permits is whether the policies let a request in that was let in before, as of start: by policies, not by anything else that the
// configuration says. Details name the policy otherwise. The head is changed.
func (c *Config) Permits(ch *Chain, r *Request, start time.Time, rnd Rand) (details string, ok bool) {
	if details, ok := ch.Admit(r.Conn); !ok {
		return details, false
	}
	var d Decision
	routes, reply := c.enter(&d, ch, r, start, rnd)
	if reply != nil {
		return "", true
	}
	for i := range d.manager.filters {
		f := &d.manager.filters[i]
		o := findOverride(d.overrides(), f.name)
		if f.rbac == nil && f.jwt == nil && f.state == nil || o == nil && f.disabled || o != nil && o.disabled {
			continue
		}
		if reply := d.one(f, o, r, rnd); reply != nil {
			return reply.Details, false
		}
		if r.ClearRoute && routes != nil {
			r.ClearRoute = false
			d.selectRoute(routes, r)
		}
	}
	return "", true
}

func (d *Decision) answer(reply *Reply) {
	d.Reply, d.Details = reply, reply.Details
	d.Flags |= reply.Flags
}

// selectRoute finds the route, and the cluster when there are several.
func (d *Decision) selectRoute(routes *Routes, r *Request) {
	d.Route, d.weighted, d.RouteName, d.VirtualHost, d.ClusterName = nil, nil, "", "", ""
	if v, ok := r.Head.Header.Get("x-forwarded-proto"); ok && v == "" {
		return // as if it were not known yet how the client came
	}
	vh := routes.find(r.Head.Authority, &r.Scratch)
	if vh == nil {
		return
	}
	if vh.tls != routev3.VirtualHost_NONE && r.Head.Header.Value("x-forwarded-proto") != "https" {
		if vh.tls == routev3.VirtualHost_ALL || !r.Internal {
			d.Route, d.VirtualHost = vh.redirectTo, vh.name
			return
		}
	}
	rt := vh.index.find(r)
	if rt == nil {
		return
	}
	d.Route, d.RouteName, d.VirtualHost = rt, rt.Name, vh.name
	r.Route, r.VirtualHost = rt.Name, vh.name
	if f := rt.forward; f != nil {
		d.ClusterName = f.cluster
		if d.weighted = f.pick(r.Random); d.weighted != nil {
			d.ClusterName = d.weighted.cluster
		}
		r.Cluster = d.ClusterName
	}
}

// upgrade is whether the request is none, or one that is allowed.
func (d *Decision) upgrade(r *Request) bool {
	kind := r.Head.Upgrade
	connect := r.Head.Method == "CONNECT"
	if connect {
		kind = "connect"
	}
	if kind == "" {
		return true
	}
	kind = r.Scratch.Lower(kind)
	if d.Route != nil && d.Route.forward != nil {
		if u, ok := d.Route.forward.upgrades[kind]; ok {
			d.Upgrade, d.ConnectTCP = u.enabled, u.enabled && u.tcp
			return u.enabled
		}
	}
	d.Upgrade = d.manager.Upgrades[kind]
	return d.Upgrade
}

// overrides are what the route says of filters.
func (d *Decision) overrides() []override {
	switch {
	case d.weighted != nil:
		return d.weighted.overrides
	case d.Route != nil:
		return d.Route.overrides
	}
	return nil
}

// filter runs the filters before the router. The first answer ends it.
func (d *Decision) filter(routes *Routes, r *Request, rnd Rand, from int) *Reply {
	over := d.overrides()
	for i := from; i < len(d.manager.filters); i++ {
		f := &d.manager.filters[i]
		o := findOverride(over, f.name)
		if o == nil && f.disabled || o != nil && o.disabled {
			continue
		}
		if reply := d.one(f, o, r, rnd); reply != nil {
			return reply
		}
		if d.Ask != nil {
			d.asked = asked{routes: routes, next: i + 1}
			return nil
		}
		if r.ClearRoute && routes != nil {
			r.ClearRoute = false
			d.selectRoute(routes, r)
			over = d.overrides()
		}
	}
	return nil
}

func (d *Decision) one(f *filter, o *override, r *Request, rnd Rand) *Reply {
	switch {
	case f.rbac != nil:
		check := f.rbac
		if o != nil && o.rbacSet {
			check = o.rbac
		}
		d.noteRBAC(f.name, check, r)
		if by, ok := check.Check(&r.Info); !ok {
			reply := replyRBAC
			reply.Details = rbac.Details(by)
			return &reply
		}
	case f.jwt != nil:
		var per *jwt.PerRoute
		if o != nil {
			per = o.jwt
		}
		deny := f.jwt.Check(&r.Info, per)
		d.noteJWT(f.name, deny)
		if deny != nil {
			return &Reply{Status: deny.Status, Body: deny.Body, Header: deny.Header, GRPCStatus: -1, Details: deny.Details}
		}
	case f.cors:
		// Envoy's looks at routes that forward only.
		if o != nil && o.cors != nil && d.Route != nil && d.Route.forward != nil {
			return o.cors.decide(d, r, rnd)
		}
	case f.fault != nil:
		ft := f.fault
		if o != nil && o.fault != nil {
			ft = o.fault
		}
		return ft.decide(d, r, rnd)
	case f.external != nil:
		d.external(f, r)
	case f.limit != nil:
		return d.limit(f, o, r, rnd)
	case f.session != nil:
		s := f.session
		if o != nil && o.session != nil {
			s = o.session
		}
		d.keepSession(s, r)
	case f.mutation != nil:
		f.mutation.request.Apply(&r.Head.Header, &r.Info)
	case f.state != nil:
		for n := range f.state {
			e := &f.state[n]
			if v := e.value.Value(&r.Info); v != "" || !e.skipEmpty {
				r.SetState(e.key, v)
			}
		}
	}
	return nil
}

// route is the router: it answers, or makes the head what upstream gets.
func (c *Config) route(d *Decision, r *Request, rnd Rand) {
	rt := d.Route
	switch {
	case rt == nil:
		d.answer(replyNoRoute)
		return
	case rt.redirect != nil:
		d.answer(&Reply{Status: rt.redirect.status, GRPCStatus: -1, Details: "direct_response", direct: true})
		d.resp.location = rt.redirect.location(r, &rt.match)
		return
	case rt.direct != nil:
		d.answer(rt.direct)
		if status := rt.direct.Status; status == 201 || status >= 300 && status < 400 {
			d.resp.location = new(redirect).location(r, &rt.match) // what was asked for, as with Envoy; the route's headers may say otherwise
		}
		return
	}
	f := rt.forward
	if d.Cluster = c.Clusters[d.ClusterName]; d.Cluster == nil {
		reply := replyNoCluster
		reply.Status = f.notFound
		d.ClusterName, r.Cluster = "", ""
		d.answer(&reply)
		return
	}
	d.Endpoints = c.EndpointsOf(d.Cluster)
	if f.idleSet {
		d.IdleTimeout = f.idle
	}
	r.Head.Header.Del("x-envoy-upstream-alt-stat-name")
	d.timeouts(r, f)
	r.Head.Header.Del("x-envoy-upstream-rq-timeout-alt-response")
	d.AttemptCount, d.AttemptCountResponse = rt.host.attemptsInRequest, rt.host.attemptsInResponse
	if d.AttemptCount {
		r.Head.Header.Set("x-envoy-attempt-count", "1")
	}
	d.requestHeaders(r)
	d.rewrite(r, f)
	d.retry(r, f.retry)
	c.mirror(d, r, f, rnd)
	if p := d.Cluster.LB.Policy; p == LBRingHash || p == LBMaglev {
		d.hash(r, f.hash, rnd)
	}
}

// requestHeaders makes the header operations of the route in Envoy's order: the weighted cluster's first, whichever is to win, then
// those that the route was compiled with.
func (d *Decision) requestHeaders(r *Request) {
	if d.weighted != nil {
		d.weighted.request.Apply(&r.Head.Header, &r.Info)
	}
	for _, ops := range d.Route.request {
		ops.Apply(&r.Head.Header, &r.Info)
	}
}

// rewrite changes authority and path.
func (d *Decision) rewrite(r *Request, f *forward) {
	if d.weighted != nil && d.weighted.host != "" {
		r.Head.Authority = d.weighted.host
	}
	host := f.host.literal
	if f.host.header != "" {
		host = r.Head.Header.Value(f.host.header)
	}
	d.AutoHost = f.host.auto && host == ""
	d.AppendHost = f.appendHost
	if host != "" {
		d.RewriteHost(r, host)
	}
	if p := f.apply(r, &d.Route.match, r.Head.Path); f.prefix != "" || f.regex != nil {
		if !d.manager.opts.suppressEnvoy {
			r.Head.Header.Set("x-envoy-original-path", r.Head.Path)
		}
		r.Head.Path = p
	}
}

// RewriteHost changes the authority of the request: by the route, or, when AutoHost says so, to the Hostname of the chosen host. What
// it was stays in x-envoy-original-host.
func (d *Decision) RewriteHost(r *Request, host string) {
	h := &r.Head.Header
	if d.AppendHost {
		if v, ok := h.Joined("x-forwarded-host"); ok {
			h.Set("x-forwarded-host", r.Scratch.Concat(v, ",", r.Head.Authority))
		} else {
			h.Set("x-forwarded-host", r.Head.Authority)
		}
	}
	if !d.manager.opts.suppressEnvoy {
		h.Set("x-envoy-original-host", r.Head.Authority)
	}
	r.Head.Authority = host
}

// mirror draws the mirrors.
func (c *Config) mirror(d *Decision, r *Request, f *forward, rnd Rand) {
	for i := range f.mirrors {
		m := &f.mirrors[i]
		if m.chance != always && !m.chance.hit(rnd.Uint64()) {
			continue
		}
		to := Mirror{ClusterName: m.cluster, Cluster: c.Clusters[m.cluster], Authority: r.Head.Authority}
		if to.Cluster != nil {
			to.Endpoints = c.EndpointsOf(to.Cluster)
		}
		if !m.noSuffix {
			to.Authority = shadowHost(r, r.Head.Authority)
		}
		d.Mirrors = append(d.Mirrors, to)
	}
}

// shadowHost puts -shadow behind the name, before the port.
func shadowHost(r *Request, authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > 0 && strings.IndexByte(authority[i:], ']') < 0 {
		return r.Scratch.Concat(authority[:i], "-shadow", authority[i:])
	}
	return r.Scratch.Concat(authority, "-shadow")
}
