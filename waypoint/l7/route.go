package l7

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Route is a compiled route: exactly one of its actions is set.
type Route struct {
	Name        string
	VirtualHost string
	StatPrefix  string
	Operation   string           // decorator
	Metadata    *corev3.Metadata // read-only

	index    int // in the virtual host
	match    routeMatch
	forward  *forward
	redirect *redirect
	direct   *Reply
	host     *virtualHost

	// request and response are header operations in the order in which they are made, without the weighted cluster's.
	request, response []*mutate.Headers
	overrides         []override
}

func (r *Routes) route(p *routev3.Route, vh *virtualHost, in, top *level) (*Route, error) {
	rt := &Route{
		Name: p.GetName(), VirtualHost: vh.name, StatPrefix: p.GetStatPrefix(), Operation: p.GetDecorator().GetOperation(),
		Metadata: p.GetMetadata(), host: vh,
	}
	var err error
	if rt.match, err = compileRouteMatch(p.GetMatch()); err != nil {
		return nil, strict.At(err, "match")
	}
	request, err := mutate.CompileHeaders("request", p.GetRequestHeadersToAdd(), p.GetRequestHeadersToRemove())
	if err != nil {
		return nil, err
	}
	response, err := mutate.CompileHeaders("response", p.GetResponseHeadersToAdd(), p.GetResponseHeadersToRemove())
	if err != nil {
		return nil, err
	}
	rt.request = orderOps(r.specificWins, request, in.request, top.request)
	rt.response = orderOps(r.specificWins, response, in.response, top.response)
	own, err := compileOverrides(p.GetTypedPerFilterConfig())
	if err != nil {
		return nil, err
	}
	rt.overrides = mergeOverrides(own, in.overrides)
	return rt, rt.action(p, in)
}

func (rt *Route) action(p *routev3.Route, in *level) error {
	var err error
	switch k := p.GetAction().(type) {
	case *routev3.Route_Route:
		rt.forward, err = compileForward(k.Route, rt, in)
		return strict.At(err, "route")
	case *routev3.Route_Redirect:
		rt.redirect, err = compileRedirect(k.Redirect)
		return strict.At(err, "redirect")
	case *routev3.Route_DirectResponse:
		rt.direct, err = compileDirect(k.DirectResponse, in.maxBody)
		return strict.At(err, "direct_response")
	case *routev3.Route_NonForwardingAction:
		return strict.Errorf("non_forwarding_action", "is not supported")
	}
	return strict.Errorf("action", "is required")
}

// orderOps is the order in which Envoy makes them: the most specific ones first, unless those are to win.
func orderOps(specificWins bool, specificFirst ...*mutate.Headers) []*mutate.Headers {
	var out []*mutate.Headers
	for _, h := range specificFirst {
		if h.Empty() {
			continue
		}
		if specificWins {
			out = append([]*mutate.Headers{h}, out...)
		} else {
			out = append(out, h)
		}
	}
	return out
}

func compileDirect(p *routev3.DirectResponseAction, limit uint32) (*Reply, error) {
	if p.GetStatus() < 200 || p.GetStatus() > 599 {
		return nil, strict.Errorf("status", "%d is no status", p.GetStatus())
	}
	body := p.GetBody().GetInlineString()
	if b := p.GetBody().GetInlineBytes(); len(b) > 0 {
		body = string(b)
	}
	if p.GetBody().GetFilename() != "" {
		return nil, strict.Errorf("body.filename", "is not supported")
	}
	if uint64(len(body)) > uint64(limit) {
		return nil, strict.Errorf("body", "has %d bytes, more than the %d of max_direct_response_body_size_bytes", len(body), limit)
	}
	return &Reply{Status: int(p.GetStatus()), Body: body, GRPCStatus: -1, Details: "direct_response", direct: true}, nil
}
