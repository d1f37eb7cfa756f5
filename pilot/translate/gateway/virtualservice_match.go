package gateway

import (
	"errors"
	"maps"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// meshGateway is the name by which a VirtualService means the proxies of the mesh.
const meshGateway = "mesh"

// namedMatch is a match with the name that the user gave it.
type namedMatch struct {
	route.Match
	name, statPrefix string
}

// matches gives those matches of a route that can apply to this proxy; none when the route does not. meant is whether the route is
// for this proxy at all.
func (t *translation) matches(h *httpPiece, gateways []string) (out []namedMatch, meant bool) {
	if len(h.in.Match) == 0 {
		return []namedMatch{{name: h.in.Name}}, true
	}
	for i, m := range h.in.Match {
		path := h.path.Child("match").Index(i)
		if m == nil || !t.concerns(h, path, m, gateways) {
			continue
		}
		meant = true
		match, ok := t.match(h, path, m)
		if !ok {
			continue
		}
		name := h.in.Name
		if m.Name != "" {
			name = strings.TrimPrefix(name+"."+m.Name, ".")
		}
		out = append(out, namedMatch{Match: match, name: name, statPrefix: m.StatPrefix})
	}
	return out, meant
}

// concerns judges what is known before any request comes: the port, the gateway, the clients.
func (t *translation) concerns(h *httpPiece, path *field.Path, m *networkingapi.HTTPMatchRequest, gateways []string) bool {
	if len(m.SourceLabels) > 0 {
		if t.waypoint {
			t.problem(h.reporter, path.Child("sourceLabels"), "a waypoint does not know the labels of clients: the match is left out")
		}
		return false
	}
	if m.Port != 0 && t.port != 0 && m.Port != t.port && !slices.Contains(t.also, m.Port) {
		return false
	}
	if m.SourceNamespace != "" && !t.waypoint && m.SourceNamespace != t.namespace {
		return false
	}
	if len(m.Gateways) == 0 {
		return true
	}
	return slices.ContainsFunc(m.Gateways, func(g string) bool { return slices.Contains(gateways, gatewayKey(g, h.namespace)) })
}

// gatewayKey makes the name of a classic Gateway full.
func gatewayKey(name, namespace string) string {
	if name == meshGateway || strings.Contains(name, "/") {
		if own, ok := strings.CutPrefix(name, "./"); ok {
			return namespace + "/" + own
		}
		return name
	}
	return namespace + "/" + name
}

// match translates one match; a piece of it that cannot be expressed takes the match with it, for it would match more without.
func (t *translation) match(h *httpPiece, path *field.Path, m *networkingapi.HTTPMatchRequest) (route.Match, bool) {
	var out route.Match
	ok := true
	if t.waypoint {
		out.SourceNamespace = m.SourceNamespace
	}
	if m.Uri != nil {
		out.Path = pathMatch(m.Uri, m.IgnoreUriCase)
		ok = t.check(h.reporter, path.Child("uri"), out.Path.Check())
	}
	pseudo := []struct {
		name, header string
		match        *networkingapi.StringMatch
	}{{"scheme", ":scheme", m.Scheme}, {"method", ":method", m.Method}, {"authority", ":authority", m.Authority}}
	for _, p := range pseudo {
		if p.match == nil {
			continue
		}
		header := route.HeaderMatch{Name: p.header, StringMatch: stringMatch(p.match)}
		ok = t.check(h.reporter, path.Child(p.name), header.Check()) && ok
		out.Headers = append(out.Headers, header)
	}
	for _, not := range []bool{false, true} {
		all, child := m.Headers, path.Child("headers")
		if not {
			all, child = m.WithoutHeaders, path.Child("withoutHeaders")
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if route.IsClaim(name) {
				claim := route.ClaimMatch{StringMatch: stringMatch(all[name]), Not: not}
				var err error
				claim.Path, err = t.claim(name)
				ok = t.check(h.reporter, child.Key(name), err) && t.check(h.reporter, child.Key(name), claim.Check()) && ok
				out.Claims = append(out.Claims, claim)
				continue
			}
			header := route.HeaderMatch{Name: name, StringMatch: stringMatch(all[name]), Not: not}
			ok = t.check(h.reporter, child.Key(name), checkMatchName(name)) && t.check(h.reporter, child.Key(name), header.Check()) && ok
			out.Headers = append(out.Headers, header)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.QueryParams)) {
		query := route.QueryMatch{Name: name, StringMatch: stringMatch(m.QueryParams[name])}
		ok = t.check(h.reporter, path.Child("queryParams").Key(name), query.Check()) && ok
		if name == "" {
			t.problem(h.reporter, path.Child("queryParams"), "the parameter has no name")
			ok = false
		}
		out.Query = append(out.Query, query)
	}
	return out, ok
}

// claim reads the name of a claim. A waypoint chooses the route before it looks at the token.
func (t *translation) claim(name string) ([]string, error) {
	if t.waypoint {
		return nil, errors.New("only gateways route by the claims of a token: the match is left out")
	}
	return route.ParseClaim(name)
}

// checkMatchName allows pseudo headers besides ordinary ones.
func checkMatchName(name string) error {
	return route.CheckName(strings.TrimPrefix(name, ":"))
}

func pathMatch(m *networkingapi.StringMatch, ignoreCase bool) route.Path {
	switch v := m.MatchType.(type) {
	case *networkingapi.StringMatch_Exact:
		return route.Path{Kind: route.PathExact, Value: v.Exact, IgnoreCase: ignoreCase}
	case *networkingapi.StringMatch_Prefix:
		return route.Path{Kind: route.PathPrefix, Value: v.Prefix, IgnoreCase: ignoreCase}
	case *networkingapi.StringMatch_Regex:
		// By the API's definition the case counts in a regular expression.
		return route.Path{Kind: route.PathRegex, Value: v.Regex}
	}
	return route.Path{}
}

// stringMatch takes an empty match for presence. An expression that takes every value is none: withoutHeaders, where a header that is
// missing counts as empty, is never true by it.
func stringMatch(m *networkingapi.StringMatch) route.StringMatch {
	switch v := m.GetMatchType().(type) {
	case *networkingapi.StringMatch_Exact:
		return route.StringMatch{Kind: route.Exact, Value: v.Exact}
	case *networkingapi.StringMatch_Prefix:
		if v.Prefix != "" {
			return route.StringMatch{Kind: route.Prefix, Value: v.Prefix}
		}
	case *networkingapi.StringMatch_Regex:
		if v.Regex != "*" { // no regular expression, but what Istio takes for one
			return route.StringMatch{Kind: route.Regex, Value: v.Regex}
		}
	}
	return route.StringMatch{}
}
