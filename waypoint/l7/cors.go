package l7

import (
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// corsPolicy is a CORS policy; nil and "" are not said, so that a more general policy may say it.
type corsPolicy struct {
	origins                          []match.String
	methods, headers, expose, maxAge string
	credentials, privateNetwork      *bool
	forwardUnmatched                 *bool
	enabled                          fraction
}

func compileCORS(p *corsv3.CorsPolicy) (*corsPolicy, error) {
	c := &corsPolicy{
		methods: p.GetAllowMethods(), headers: p.GetAllowHeaders(), expose: p.GetExposeHeaders(), maxAge: p.GetMaxAge(), enabled: always,
	}
	for i, o := range p.GetAllowOriginStringMatch() {
		m, err := match.CompileString(o)
		if err != nil {
			return nil, strict.AtIndex(err, "allow_origin_string_match", i)
		}
		c.origins = append(c.origins, m)
	}
	if v := p.GetAllowCredentials(); v != nil {
		c.credentials = &v.Value
	}
	if v := p.GetAllowPrivateNetworkAccess(); v != nil {
		c.privateNetwork = &v.Value
	}
	if v := p.GetForwardNotMatchingPreflights(); v != nil {
		c.forwardUnmatched = &v.Value
	}
	if f := p.GetFilterEnabled(); f != nil {
		c.enabled = fractionOf(f.GetDefaultValue())
	}
	return c, nil
}

// merge fills what c does not say from a more general policy.
func (c *corsPolicy) merge(g *corsPolicy) *corsPolicy {
	m := *c
	if len(m.origins) == 0 {
		m.origins = g.origins
	}
	m.methods, m.headers = or(m.methods, g.methods), or(m.headers, g.headers)
	m.expose, m.maxAge = or(m.expose, g.expose), or(m.maxAge, g.maxAge)
	m.credentials, m.privateNetwork = or(m.credentials, g.credentials), or(m.privateNetwork, g.privateNetwork)
	m.forwardUnmatched = or(m.forwardUnmatched, g.forwardUnmatched)
	return &m
}

func or[T comparable](a, b T) T {
	var zero T
	if a == zero {
		return b
	}
	return a
}

// allows is whether an origin may read the answer. A matcher that takes "*" takes all.
func (c *corsPolicy) allows(origin string) bool {
	for i := range c.origins {
		if c.origins[i].Match("*") || c.origins[i].Match(origin) {
			return true
		}
	}
	return false
}

func isTrue(b *bool) bool { return b != nil && *b }

// decide answers a preflight, and remembers what the response needs.
func (c *corsPolicy) decide(d *Decision, r *Request, rnd Rand) *Reply {
	if c.enabled != always && !c.enabled.hit(rnd.Uint64()) {
		return nil
	}
	origin := r.Head.Header.Value("origin")
	if origin == "" {
		return nil
	}
	asked := r.Head.Header.Value("access-control-request-method")
	preflight := asked != "" && r.Head.Method == "OPTIONS"
	allowed := c.allows(origin)
	if allowed {
		d.resp.cors, d.resp.origin = c, origin
	}
	if !preflight || !allowed && (c.forwardUnmatched == nil || *c.forwardUnmatched) {
		return nil
	}
	return c.answer(r, asked, allowed)
}

// answer answers a preflight. One of an origin that is not allowed lacks the header that names it, by which browsers decide.
func (c *corsPolicy) answer(r *Request, asked string, allowed bool) *Reply {
	reply := &Reply{Status: 200, GRPCStatus: -1, Details: "cors_response", bare: true}
	add := func(key, value string) {
		if value != "" {
			reply.Header = append(reply.Header, httpmsg.Field{Key: key, Value: value})
		}
	}
	if !allowed && isTrue(c.credentials) {
		add("access-control-allow-credentials", "true")
	}
	// A * alone is what the client asks for: browsers do not take it by itself where credentials are sent.
	if c.methods == "*" {
		add("access-control-allow-methods", asked)
	} else {
		add("access-control-allow-methods", c.methods)
	}
	if c.headers == "*" {
		wanted, _ := r.Head.Header.Joined("access-control-request-headers")
		reply.Header = append(reply.Header, httpmsg.Field{Key: "access-control-allow-headers", Value: wanted})
	} else {
		add("access-control-allow-headers", c.headers)
	}
	add("access-control-max-age", c.maxAge)
	if isTrue(c.privateNetwork) && r.Head.Header.Value("access-control-request-private-network") == "true" {
		add("access-control-allow-private-network", "true")
	}
	return reply
}

// respond adds to a response what lets the origin read it.
func (c *corsPolicy) respond(h *httpmsg.Header, origin string) {
	h.Set("access-control-allow-origin", origin)
	if isTrue(c.credentials) {
		h.Set("access-control-allow-credentials", "true")
	}
	if c.expose != "" {
		h.Set("access-control-expose-headers", c.expose)
	}
}
