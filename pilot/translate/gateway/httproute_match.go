package gateway

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// httpMatches translates the matches of a rule; a rule without any takes every request.
func (t *translation) httpMatches(o routeObject, path *field.Path, in []gatewayv1.HTTPRouteMatch) []route.Match {
	if len(in) == 0 {
		return []route.Match{{}}
	}
	var out []route.Match
	for i, m := range in {
		at := path.Child("matches").Index(i)
		match, ok := t.httpMatch(o, at, m)
		if ok {
			out = append(out, match)
		}
	}
	return out
}

func (t *translation) httpMatch(o routeObject, at *field.Path, m gatewayv1.HTTPRouteMatch) (out route.Match, ok bool) {
	ok = true
	if m.Path != nil {
		out.Path, ok = t.httpPath(o, at.Child("path"), m.Path)
	}
	if m.Method != nil {
		out.Headers = append(out.Headers, route.HeaderMatch{Name: ":method", StringMatch: route.StringMatch{Kind: route.Exact, Value: string(*m.Method)}})
	}
	seen := map[string]bool{}
	for i, h := range m.Headers {
		name := strings.ToLower(string(h.Name))
		if seen[name] {
			continue // the API: only the first entry of a name counts
		}
		seen[name] = true
		match, good := t.apiMatch(o, at.Child("headers").Index(i), h.Type == nil || *h.Type == gatewayv1.HeaderMatchExact, h.Value)
		good = t.check(o.origin(), at.Child("headers").Index(i).Child("name"), route.CheckName(name)) && good
		out.Headers = append(out.Headers, route.HeaderMatch{Name: hostAsAuthority(name), StringMatch: match})
		ok = ok && good
	}
	seenQuery := map[string]bool{}
	for i, q := range m.QueryParams {
		if seenQuery[string(q.Name)] {
			continue
		}
		seenQuery[string(q.Name)] = true
		match, good := t.apiMatch(o, at.Child("queryParams").Index(i), q.Type == nil || *q.Type == gatewayv1.QueryParamMatchExact, q.Value)
		if q.Name == "" {
			t.problem(o.origin(), at.Child("queryParams").Index(i), "the parameter has no name")
			good = false
		}
		out.Query = append(out.Query, route.QueryMatch{Name: string(q.Name), StringMatch: match})
		ok = ok && good
	}
	return out, ok
}

// hostAsAuthority: a proxy keeps the Host header under its name in HTTP/2.
func hostAsAuthority(name string) string {
	if name == "host" {
		return ":authority"
	}
	return name
}

func (t *translation) apiMatch(o routeObject, at *field.Path, exact bool, value string) (route.StringMatch, bool) {
	m := route.StringMatch{Kind: route.Regex, Value: value}
	if exact {
		m.Kind = route.Exact
	}
	return m, t.check(o.origin(), at.Child("value"), m.Check())
}

func (t *translation) httpPath(o routeObject, at *field.Path, in *gatewayv1.HTTPPathMatch) (route.Path, bool) {
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if in.Type != nil {
		kind = *in.Type
	}
	if in.Value != nil {
		value = *in.Value
	}
	out := route.Path{Value: value}
	switch kind {
	case gatewayv1.PathMatchExact:
		out.Kind = route.PathExact
	case gatewayv1.PathMatchPathPrefix:
		out.Kind = route.PathSegments
		if value == "/" {
			return route.Path{}, true
		}
		out.Value = strings.TrimRight(value, "/")
	case gatewayv1.PathMatchRegularExpression:
		out.Kind = route.PathRegex
	default:
		t.problem(o.origin(), at.Child("type"), "%s is not supported", kind)
		return out, false
	}
	return out, t.check(o.origin(), at.Child("value"), out.Check())
}

// grpcMatches translates the matches of a GRPCRoute: a method is a path in HTTP.
func (t *translation) grpcMatches(o routeObject, path *field.Path, in []gatewayv1.GRPCRouteMatch) []route.Match {
	if len(in) == 0 {
		return []route.Match{{}}
	}
	var out []route.Match
	for i, m := range in {
		at := path.Child("matches").Index(i)
		var match route.Match
		ok := true
		if m.Method != nil {
			match.Path = grpcPath(m.Method)
			ok = t.check(o.origin(), at.Child("method"), match.Path.Check())
		}
		seen := map[string]bool{}
		for j, h := range m.Headers {
			name := strings.ToLower(string(h.Name))
			if seen[name] {
				continue
			}
			seen[name] = true
			sm, good := t.apiMatch(o, at.Child("headers").Index(j), h.Type == nil || *h.Type == gatewayv1.GRPCHeaderMatchExact, h.Value)
			good = t.check(o.origin(), at.Child("headers").Index(j).Child("name"), route.CheckName(name)) && good
			match.Headers = append(match.Headers, route.HeaderMatch{Name: hostAsAuthority(name), StringMatch: sm})
			ok = ok && good
		}
		if ok {
			out = append(out, match)
		}
	}
	return out
}

func grpcPath(m *gatewayv1.GRPCMethodMatch) route.Path {
	service, method := "", ""
	if m.Service != nil {
		service = *m.Service
	}
	if m.Method != nil {
		method = *m.Method
	}
	regex := m.Type != nil && *m.Type == gatewayv1.GRPCMethodMatchRegularExpression
	switch {
	case service == "" && method == "":
		return route.Path{}
	case !regex && service != "" && method != "":
		return route.Path{Kind: route.PathExact, Value: "/" + service + "/" + method}
	case !regex && service != "":
		return route.Path{Kind: route.PathPrefix, Value: "/" + service + "/"}
	}
	part := func(text, any string) string {
		switch {
		case text == "":
			return any
		case !regex:
			return regexp.QuoteMeta(text)
		case strings.Contains(text, "|"):
			return "(?:" + text + ")"
		}
		return text
	}
	return route.Path{Kind: route.PathRegex, Value: "/" + part(service, "[^/]+") + "/" + part(method, ".+")}
}
