package route

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// peerPrincipal is the filter state in which a waypoint keeps the identity of a request's client.
const peerPrincipal = "io.istio.peer_principal"

func (m Match) envoy() *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	m.Path.apply(out)
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, h.envoy())
	}
	for _, q := range m.Query {
		out.QueryParameters = append(out.QueryParameters, q.envoy())
	}
	for _, c := range m.Claims {
		out.DynamicMetadata = append(out.DynamicMetadata, c.envoy())
	}
	if m.Chance > 0 {
		// All chances have to be of the same whole: the draw is taken modulo it.
		out.RuntimeFraction = &corev3.RuntimeFractionalPercent{
			DefaultValue: &typev3.FractionalPercent{Numerator: uint32(m.Chance), Denominator: typev3.FractionalPercent_MILLION},
		}
	}
	if m.SourceNamespace != "" {
		identity := "spiffe://[^/]+/ns/" + regexp.QuoteMeta(m.SourceNamespace) + "/sa/[^/]+"
		out.FilterState = []*matcherv3.FilterStateMatcher{{
			Key:     peerPrincipal,
			Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: StringMatch{Kind: Regex, Value: identity}.envoy()},
		}}
	}
	return out
}

func (p Path) apply(out *routev3.RouteMatch) {
	switch p.Kind {
	case PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: p.Value}
	case PathRegex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: p.Value}}
		return
	case PathSegments:
		// Envoy wants at least two characters and no slash at the end.
		if value := strings.TrimRight(p.Value, "/"); value != "" {
			out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: value}
		} else {
			out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
		}
	case PathPrefix:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: p.Value}
	case PathAny:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	}
	if p.IgnoreCase {
		out.CaseSensitive = wrapperspb.Bool(false)
	}
}

// text is the path as a person writes it: part of a decorator's operation.
func (p Path) text() string {
	switch p.Kind {
	case PathExact, PathRegex:
		return p.Value
	case PathPrefix:
		return p.Value + "*"
	case PathSegments:
		return strings.TrimRight(p.Value, "/") + "/*"
	case PathAny:
	}
	return "/*"
}

func (h HeaderMatch) envoy() *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: h.Name, InvertMatch: h.Not}
	if h.Kind == Present {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: h.StringMatch.envoy()}
	// Without this a request that lacks the header would not match, although it does not have the value.
	out.TreatMissingHeaderAsEmpty = h.Not
	return out
}

func (q QueryMatch) envoy() *routev3.QueryParameterMatcher {
	out := &routev3.QueryParameterMatcher{Name: q.Name}
	if q.Kind == Present {
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
	} else {
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: q.StringMatch.envoy()}
	}
	return out
}

func (m StringMatch) envoy() *matcherv3.StringMatcher {
	out := &matcherv3.StringMatcher{IgnoreCase: m.IgnoreCase}
	switch m.Kind {
	case Exact:
		out.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: m.Value}
	case Prefix:
		out.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: m.Value}
	case Suffix:
		out.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: m.Value}
	case Contains:
		out.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: m.Value}
	case Regex:
		// Envoy has no such flag for regexes.
		out.IgnoreCase = false
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Value}}
	case Present:
		out.IgnoreCase = false
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: ".*"}}
	}
	return out
}

// All reports whether the match takes every request.
func (m Match) All() bool {
	return len(m.Headers) == 0 && len(m.Query) == 0 && len(m.Claims) == 0 && m.SourceNamespace == "" && m.Chance == 0 && m.Path.all()
}

func (p Path) all() bool {
	switch p.Kind {
	case PathAny:
		return true
	case PathPrefix, PathSegments:
		return p.Value == "/"
	case PathRegex:
		return p.Value == ".*"
	case PathExact:
	}
	return false
}
