package gateway

import (
	"math"
	"net/http"
	"strconv"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// httpPiece is one http[] entry of a VirtualService, or of one that it delegates to.
type httpPiece struct {
	in   *networkingapi.HTTPRoute
	path *field.Path
	// namespace is the one in which short names of the piece stand.
	namespace string
	// origin is what the route's metadata names, reporter the object in which the piece is written: they differ by delegation.
	origin, reporter route.Origin
	// refused is set when what the piece does is not known: its requests are answered by 500.
	refused bool
}

// httpRoutes translates http[] for one proxy. gateways are the names by which the VirtualService may mean this proxy; concerned is
// whether any of its routes does, even if it cannot be used.
func (t *translation) httpRoutes(vs *networkingv1.VirtualService, gateways []string) (out []route.Route, concerned bool) {
	for _, piece := range t.pieces(vs) {
		matches, meant := t.matches(piece, gateways)
		concerned = concerned || meant
		if len(matches) == 0 {
			continue
		}
		base, single := t.action(piece)
		base.Origin = piece.origin
		host, port := vs.Name, t.port
		if single != nil {
			host, port = single.host, single.port
		}
		for _, m := range matches {
			r := base
			r.Match, r.Name, r.StatPrefix = m.Match, m.name, m.statPrefix
			r.Decorator = route.Operation(host, strconv.FormatUint(uint64(port), 10), m.Path)
			out = append(out, r)
		}
	}
	return reachable(out), concerned
}

// action translates what is done with a request. What cannot be done is answered by 500: falling through to the next route could
// send the request where it was not meant to go. single is the destination when there is only one.
func (t *translation) action(h *httpPiece) (r route.Route, single *destinationTarget) {
	set := 0
	for _, is := range []bool{len(h.in.Route) > 0, h.in.Redirect != nil, h.in.DirectResponse != nil} {
		if is {
			set++
		}
	}
	refuse := func(path *field.Path, format string, args ...any) (route.Route, *destinationTarget) {
		t.problem(h.reporter, path, format, args...)
		return route.Route{Direct: &route.Direct{Status: http.StatusInternalServerError}}, nil
	}
	switch {
	case h.refused:
		return route.Route{Direct: &route.Direct{Status: http.StatusInternalServerError}}, nil
	case set == 0:
		return refuse(h.path, "one of route, redirect and directResponse is needed")
	case set > 1:
		return refuse(h.path, "only one of route, redirect and directResponse may be set")
	case h.in.Redirect != nil:
		redirect, ok := t.redirect(h, h.in.Redirect)
		if !ok {
			return route.Route{Direct: &route.Direct{Status: http.StatusInternalServerError}}, nil
		}
		r.Redirect = redirect
	case h.in.DirectResponse != nil:
		status := h.in.DirectResponse.Status
		if status < 200 || status > 599 {
			return refuse(h.path.Child("directResponse", "status"), "%d is no status that can be answered", status)
		}
		r.Direct = &route.Direct{Status: status, Body: bodyOf(h.in.DirectResponse.Body)}
		if len(r.Direct.Body) > 1<<20 {
			return refuse(h.path.Child("directResponse", "body"), "the body is larger than 1 MiB")
		}
	default:
		r.Forward, single = t.forward(h)
		if r.Forward == nil {
			return route.Route{Direct: &route.Direct{Status: http.StatusInternalServerError}}, nil
		}
	}
	request, response, authority := t.headers(h, h.path.Child("headers"), h.in.Headers)
	r.Request, r.Response = request, response
	if r.Forward != nil && authority != "" && r.Forward.Rewrite.Authority == "" {
		r.Forward.Rewrite.Authority = authority
	}
	r.Fault = t.fault(h)
	r.CORS = t.cors(h)
	return r, single
}

func bodyOf(in *networkingapi.HTTPBody) []byte {
	switch b := in.GetSpecifier().(type) {
	case *networkingapi.HTTPBody_String_:
		return []byte(b.String_)
	case *networkingapi.HTTPBody_Bytes:
		return b.Bytes
	}
	return nil
}

// forward translates the destinations and how they are reached; nil when there is none to go to.
func (t *translation) forward(h *httpPiece) (*route.Forward, *destinationTarget) {
	out := &route.Forward{Retry: t.retry(h.reporter, h.path.Child("retries"), h.in.Retries)}
	var first destinationTarget
	var sum uint64
	for i, d := range h.in.Route {
		path := h.path.Child("route").Index(i)
		to, ok := t.destination(h.reporter, h.namespace, path.Child("destination"), d.GetDestination())
		if !ok {
			return nil, nil
		}
		target := route.Target{Cluster: to.cluster, Session: serviceSession(t.view.Service(to.host, h.namespace))}
		if d.Weight < 0 {
			t.problem(h.reporter, path.Child("weight"), "the weight is negative, and counts as 0")
		} else {
			target.Weight = uint32(d.Weight)
		}
		sum += uint64(target.Weight)
		target.Request, target.Response, target.Host = t.headers(h, path.Child("headers"), d.Headers)
		out.Targets = append(out.Targets, target)
		if len(h.in.Route) == 1 || target.Weight > 0 {
			out.Hash = addHash(out.Hash, t.hash(to))
		}
		if i == 0 {
			first = to
		}
	}
	if sum == 0 && len(h.in.Route) > 1 {
		t.problem(h.reporter, h.path.Child("route"), "the weights of all destinations are 0")
		return nil, nil
	}
	if h.in.Timeout != nil {
		path := h.path.Child("timeout")
		if err := h.in.Timeout.CheckValid(); t.check(h.reporter, path, err) {
			if out.Timeout = h.in.Timeout.AsDuration(); out.Timeout < 0 {
				t.problem(h.reporter, path, "the timeout is negative, and counts as none")
				out.Timeout = 0
			}
		}
	}
	var ok bool
	if out.Rewrite, ok = t.rewrite(h); !ok {
		return nil, nil
	}
	out.Mirrors = t.mirrors(h)
	if len(h.in.Route) == 1 {
		return out, &first
	}
	return out, nil
}

func (t *translation) rewrite(h *httpPiece) (route.Rewrite, bool) {
	in, path := h.in.Rewrite, h.path.Child("rewrite")
	if in == nil {
		return route.Rewrite{}, true
	}
	out := route.Rewrite{Authority: in.Authority}
	ok := t.check(h.reporter, path.Child("authority"), route.CheckValue(in.Authority))
	switch {
	case in.UriRegexRewrite != nil && in.Uri != "":
		t.problem(h.reporter, path, "only one of uri and uriRegexRewrite may be set")
		return out, false
	case in.UriRegexRewrite != nil:
		out.Regex = &route.RegexRewrite{Pattern: in.UriRegexRewrite.Match, Substitution: in.UriRegexRewrite.Rewrite}
		ok = t.check(h.reporter, path.Child("uriRegexRewrite"), out.Regex.Check()) && ok
	default:
		out.Prefix = in.Uri
		ok = t.check(h.reporter, path.Child("uri"), route.CheckValue(in.Uri)) && ok
	}
	return out, ok
}

func (t *translation) mirrors(h *httpPiece) []route.Mirror {
	var out []route.Mirror
	add := func(path *field.Path, to *networkingapi.Destination, share route.Share) {
		if target, ok := t.destination(h.reporter, h.namespace, path, to); ok && share > 0 {
			out = append(out, route.Mirror{Cluster: target.cluster, Share: share})
		}
	}
	for i, m := range h.in.Mirrors {
		path := h.path.Child("mirrors").Index(i)
		add(path.Child("destination"), m.GetDestination(), t.share(h, path.Child("percentage"), m.GetPercentage(), route.Everything))
	}
	if h.in.Mirror == nil {
		return out
	}
	path := h.path.Child("mirror")
	if len(h.in.Mirrors) > 0 {
		t.problem(h.reporter, path, "only one of mirror and mirrors may be set: mirrors counts")
		return out
	}
	otherwise := route.Everything
	if p := h.in.GetMirrorPercent(); p != nil { //nolint:staticcheck // still in the field's manifests
		otherwise = route.Share(min(p.Value, 100)) * 10_000
	}
	add(path, h.in.Mirror, t.share(h, h.path.Child("mirrorPercentage"), h.in.MirrorPercentage, otherwise))
	return out
}

// share reads a percentage.
func (t *translation) share(h *httpPiece, path *field.Path, p *networkingapi.Percent, otherwise route.Share) route.Share {
	if p == nil {
		return otherwise
	}
	if math.IsNaN(p.Value) || p.Value < 0 || p.Value > 100 {
		t.problem(h.reporter, path, "%v is no percentage, and counts as 0", p.Value)
		return 0
	}
	return route.Share(math.Round(p.Value * 10_000))
}
