package gateway

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// effects are what the filters of a rule, or of a backend, do.
type effects struct {
	request, response route.HeaderOps
	authority         string
	rewrite           *gatewayv1.HTTPURLRewriteFilter
	redirect          *gatewayv1.HTTPRequestRedirectFilter
	mirrors           []route.Mirror
	cors              *route.CORS
}

// needsRoute reports whether a backend's filters do what only a route of its own can.
func (e effects) needsRoute() bool {
	return e.redirect != nil || e.cors != nil || len(e.mirrors) > 0 || e.rewrite != nil && e.rewrite.Path != nil
}

// then gives the effects of both; what the other says of the same thing counts.
func (e effects) then(o effects) effects {
	out := effects{
		request: e.request.Then(o.request), response: e.response.Then(o.response), authority: o.authority, rewrite: o.rewrite,
		redirect: o.redirect, mirrors: append(slices.Clone(e.mirrors), o.mirrors...), cors: o.cors,
	}
	if out.authority == "" {
		out.authority = e.authority
	}
	if out.rewrite == nil || out.rewrite.Path == nil && e.rewrite != nil {
		out.rewrite = e.rewrite
	}
	if out.cors == nil {
		out.cors = e.cors
	}
	return out
}

// filters reads filters; ok is false when one of them cannot be honoured, and the requests have to be refused: a filter may be
// what protects a backend.
func (t *translation) filters(o routeObject, path *field.Path, in []gatewayv1.HTTPRouteFilter) (out effects, ok bool) {
	ok = true
	for i, f := range in {
		at := path.Child("filters").Index(i)
		switch {
		case f.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			ops, authority := t.modifier(o, at.Child("requestHeaderModifier"), f.RequestHeaderModifier, true)
			out.request = out.request.Then(ops)
			if authority != "" {
				out.authority = authority
			}
		case f.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			ops, _ := t.modifier(o, at.Child("responseHeaderModifier"), f.ResponseHeaderModifier, false)
			out.response = out.response.Then(ops)
		case f.Type == gatewayv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
			out.rewrite = f.URLRewrite
			ok = t.checkPathModifier(o, at.Child("urlRewrite", "path"), f.URLRewrite.Path) && ok
			if f.URLRewrite.Hostname != nil {
				out.authority = string(*f.URLRewrite.Hostname)
				ok = t.check(o.origin(), at.Child("urlRewrite", "hostname"), route.CheckValue(out.authority)) && ok
			}
		case f.Type == gatewayv1.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
			out.redirect = f.RequestRedirect
			ok = t.checkRedirect(o, at.Child("requestRedirect"), f.RequestRedirect) && ok
		case f.Type == gatewayv1.HTTPRouteFilterRequestMirror && f.RequestMirror != nil:
			to, good := t.backend(o, at.Child("requestMirror", "backendRef"), f.RequestMirror.BackendRef)
			if share := t.mirrorShare(o, at.Child("requestMirror"), f.RequestMirror); good && share > 0 {
				out.mirrors = append(out.mirrors, route.Mirror{Cluster: to.cluster, Share: share})
			}
		case f.Type == gatewayv1.HTTPRouteFilterCORS && f.CORS != nil:
			out.cors = apiCORS(f.CORS)
		default:
			t.problem(o.origin(), at.Child("type"), "%s is not supported: the requests of this rule are answered by 500", f.Type)
			ok = false
		}
	}
	if out.redirect != nil && out.rewrite != nil {
		t.problem(o.origin(), path.Child("filters"), "RequestRedirect and URLRewrite exclude one another")
		ok = false
	}
	return out, ok
}

func (t *translation) modifier(o routeObject, at *field.Path, in *gatewayv1.HTTPHeaderFilter, request bool) (out route.HeaderOps, authority string) {
	read := func(at *field.Path, all []gatewayv1.HTTPHeader) []route.Header {
		var headers []route.Header
		for i, h := range all {
			name := string(h.Name)
			switch {
			case !t.check(o.origin(), at.Index(i).Child("name"), route.CheckName(name)):
			case !t.check(o.origin(), at.Index(i).Child("value"), route.CheckValue(h.Value)):
			case route.IsHost(name) && request:
				authority = h.Value
			case route.IsHost(name):
				t.problem(o.origin(), at.Index(i).Child("name"), "this header cannot be changed")
			default:
				headers = append(headers, route.Header{Name: name, Value: route.Literal(h.Value)})
			}
		}
		return headers
	}
	out.Set, out.Add = read(at.Child("set"), in.Set), read(at.Child("add"), in.Add)
	for i, name := range in.Remove {
		if route.IsHost(name) {
			t.problem(o.origin(), at.Child("remove").Index(i), "this header cannot be removed")
		} else if t.check(o.origin(), at.Child("remove").Index(i), route.CheckName(name)) {
			out.Remove = append(out.Remove, name)
		}
	}
	return
}

func (t *translation) mirrorShare(o routeObject, at *field.Path, in *gatewayv1.HTTPRequestMirrorFilter) route.Share {
	switch {
	case in.Percent != nil:
		if *in.Percent < 0 || *in.Percent > 100 {
			t.problem(o.origin(), at.Child("percent"), "%d is no percentage", *in.Percent)
			return 0
		}
		return route.Share(*in.Percent) * 10_000
	case in.Fraction != nil:
		of := int64(100)
		if in.Fraction.Denominator != nil {
			of = int64(*in.Fraction.Denominator)
		}
		n := int64(in.Fraction.Numerator)
		if n < 0 || of <= 0 || n > of {
			t.problem(o.origin(), at.Child("fraction"), "%d/%d is no fraction", n, of)
			return 0
		}
		return route.Share(n * int64(route.Everything) / of)
	}
	return route.Everything
}

// defaultMaxAge is what an API server fills in, in seconds.
const defaultMaxAge = 5

func apiCORS(in *gatewayv1.HTTPCORSFilter) *route.CORS {
	out := &route.CORS{AllowCredentials: in.AllowCredentials}
	for _, origin := range in.AllowOrigins {
		m := route.StringMatch{Kind: route.Exact, Value: string(origin)}
		if before, after, wildcard := strings.Cut(m.Value, "*"); wildcard && m.Value != "*" {
			m = route.StringMatch{Kind: route.Regex, Value: regexp.QuoteMeta(before) + ".+" + regexp.QuoteMeta(after)}
		}
		if m.Check() == nil {
			out.Origins = append(out.Origins, m)
		}
	}
	for _, method := range in.AllowMethods {
		out.AllowMethods = append(out.AllowMethods, string(method))
	}
	for _, h := range in.AllowHeaders {
		out.AllowHeaders = append(out.AllowHeaders, string(h))
	}
	for _, h := range in.ExposeHeaders {
		out.ExposeHeaders = append(out.ExposeHeaders, string(h))
	}
	age := time.Duration(cmp.Or(in.MaxAge, defaultMaxAge)) * time.Second
	out.MaxAge = &age
	return out
}
