package route

import (
	"math"
	"net/http"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func (f *Forward) envoy(out *routev3.Route) {
	action := &routev3.RouteAction{
		Timeout: durationpb.New(f.Timeout),
		// A grpc-timeout of the client counts, up to the route's own.
		MaxGrpcTimeout: durationpb.New(f.Timeout), //nolint:staticcheck // the field that Istio's dumps show, and Envoy honours
		RetryPolicy:    f.Retry.envoy(len(f.Hash) > 0),
	}
	f.targets(action, out)
	for _, m := range f.Mirrors {
		action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster: m.Cluster, RuntimeFraction: m.Share.fraction(),
		})
	}
	for _, h := range f.Hash {
		action.HashPolicy = append(action.HashPolicy, h.envoy())
	}
	f.Rewrite.apply(action)
	if f.MissingIs500 {
		action.ClusterNotFoundResponseCode = routev3.RouteAction_INTERNAL_SERVER_ERROR
	}
	out.Action = &routev3.Route_Route{Route: action}
}

// targets writes one cluster, or the weighted ones; headers of the only target become the route's.
func (f *Forward) targets(action *routev3.RouteAction, out *routev3.Route) {
	targets := weighted(f.Targets)
	if len(targets) == 1 {
		t := targets[0]
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: t.Cluster}
		out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, t.Request.add()...)
		out.RequestHeadersToRemove = append(out.RequestHeadersToRemove, t.Request.Remove...)
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, t.Response.add()...)
		out.ResponseHeadersToRemove = append(out.ResponseHeadersToRemove, t.Response.Remove...)
		if t.Host != "" && (len(f.Targets) == 1 || f.Rewrite.Authority == "") { // beside others, that weigh nothing, the route's host wins
			action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: t.Host}
		}
		return
	}
	split := &routev3.WeightedCluster{}
	for _, t := range targets {
		c := &routev3.WeightedCluster_ClusterWeight{
			Name:                    t.Cluster,
			Weight:                  wrapperspb.UInt32(t.Weight),
			RequestHeadersToAdd:     t.Request.add(),
			RequestHeadersToRemove:  t.Request.Remove,
			ResponseHeadersToAdd:    t.Response.add(),
			ResponseHeadersToRemove: t.Response.Remove,
		}
		if t.Host != "" {
			c.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: t.Host}
		}
		if t.Session != nil && f.Session == nil {
			c.TypedPerFilterConfig = map[string]*anypb.Any{SessionFilter: mustAny(t.Session.envoy())}
		}
		split.Clusters = append(split.Clusters, c)
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: split}
}

// weighted leaves out what gets nothing, and keeps the sum within Envoy's 32 bits. One target gets all, whatever its weight.
func weighted(targets []Target) []Target {
	if len(targets) == 1 {
		return targets
	}
	var sum uint64
	out := make([]Target, 0, len(targets))
	for _, t := range targets {
		if t.Weight > 0 {
			out = append(out, t)
			sum += uint64(t.Weight)
		}
	}
	for sum > math.MaxUint32 {
		sum = 0
		for i := range out {
			out[i].Weight = max(1, out[i].Weight/2)
			sum += uint64(out[i].Weight)
		}
	}
	return out
}

func (r Rewrite) apply(action *routev3.RouteAction) {
	action.PrefixRewrite = r.Prefix
	if r.Regex != nil {
		action.RegexRewrite = r.Regex.envoy()
	}
	if r.Authority != "" && action.HostRewriteSpecifier == nil {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Authority}
	}
}

func (r RegexRewrite) envoy() *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: r.Pattern}, Substitution: r.Substitution}
}

func (h Hash) envoy() *routev3.RouteAction_HashPolicy {
	out := &routev3.RouteAction_HashPolicy{}
	switch {
	case h.Header != "":
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
	case h.Query != "":
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query},
		}
	case h.Cookie != nil:
		cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie.Name, Path: h.Cookie.Path}
		if h.Cookie.TTL != nil {
			cookie.Ttl = durationpb.New(*h.Cookie.TTL)
		}
		for _, a := range h.Cookie.Attributes {
			cookie.Attributes = append(cookie.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a.Name, Value: a.Value})
		}
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}
	default:
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}
	}
	return out
}

func (r *Redirect) envoy() *routev3.RedirectAction {
	out := &routev3.RedirectAction{HostRedirect: r.Host, PortRedirect: r.Port}
	if r.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.Path != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Path}
	case r.Prefix != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: r.Prefix}
	case r.Regex != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: r.Regex.envoy()}
	}
	switch r.Code {
	case http.StatusFound:
		out.ResponseCode = routev3.RedirectAction_FOUND
	case http.StatusSeeOther:
		out.ResponseCode = routev3.RedirectAction_SEE_OTHER
	case http.StatusTemporaryRedirect:
		out.ResponseCode = routev3.RedirectAction_TEMPORARY_REDIRECT
	case http.StatusPermanentRedirect:
		out.ResponseCode = routev3.RedirectAction_PERMANENT_REDIRECT
	default:
		out.ResponseCode = routev3.RedirectAction_MOVED_PERMANENTLY
	}
	return out
}
