package policy

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	typeapi "istio.io/api/type/v1beta1"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// RateLimitFilter begins the names of the filters of RateLimitPolicies: "isthmus.ratelimit/NAMESPACE/NAME".
const RateLimitFilter = "isthmus.ratelimit/"

const (
	// sourceHeader carries the client's identity from before the limits to after them. What clients send there is removed.
	sourceHeader = "x-isthmus-ratelimit-source"
	// fairKey marks a descriptor that says by what the bucket of another is divided. No bucket is configured for it, so that Envoy
	// does nothing with it.
	fairKey = "isthmus.fair-share"
	// limitKey is the first key of descriptors: which limit of the policy it is.
	limitKey = "limit"
)

// RouteRef is a route of the Gateway API that a filter chain serves.
type RouteRef struct{ Kind, Namespace, Name string }

// RateLimit is a policy at a filter chain.
type RateLimit struct {
	*policyapi.RateLimitPolicy
	// Routes are those that it is for; none is everything at the chain.
	Routes []policyapi.TargetRef
}

// AttachedRateLimits selects the policies that a filter chain has to enforce, the oldest first. routes are those that the chain serves.
func AttachedRateLimits(t Target, routes []RouteRef, all []*policyapi.RateLimitPolicy) []RateLimit {
	var out []RateLimit
	for _, p := range all {
		one := RateLimit{RateLimitPolicy: p}
		whole := false
		for _, ref := range p.Spec.TargetRefs {
			if IsRoute(ref) {
				if slices.Contains(routes, RouteRef{ref.Kind, p.Namespace, ref.Name}) && !slices.Contains(one.Routes, ref) {
					one.Routes = append(one.Routes, ref)
				}
				continue
			}
			whole = whole || t.namedBy(&p.ObjectMeta, &typeapi.PolicyTargetReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name})
		}
		if whole {
			one.Routes = nil // the whole has them
		}
		if whole || len(one.Routes) > 0 {
			out = append(out, one)
		}
	}
	slices.SortStableFunc(out, func(a, b RateLimit) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// IsRoute is whether a target is a route.
func IsRoute(ref policyapi.TargetRef) bool {
	return ref.Group == "gateway.networking.k8s.io" && (ref.Kind == "HTTPRoute" || ref.Kind == "GRPCRoute")
}

// RateLimitFilters are the filters of policies, to stand after those that authenticate and authorize.
func RateLimitFilters(proxy Proxy, policies []RateLimit) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	bySource := false
	for _, p := range policies {
		bySource = bySource || p.bySource()
		out = append(out, &hcmv3.HttpFilter{
			Name:       RateLimitFilter + p.Namespace + "/" + p.Name,
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(p.filter())},
		})
	}
	if bySource {
		out = append([]*hcmv3.HttpFilter{tellSource(proxy)}, append(out, forgetSource())...)
	}
	return out
}

func (p RateLimit) bySource() bool {
	ofSource := func(k policyapi.Key) bool { return k.Type.OfSource() }
	return slices.ContainsFunc(p.Spec.Limits, func(l policyapi.Limit) bool {
		return slices.ContainsFunc(l.By, ofSource) || slices.ContainsFunc(l.FairShare, ofSource)
	})
}

// tellSource puts the client's identity where descriptors find it.
func tellSource(proxy Proxy) *hcmv3.HttpFilter {
	from := "%FILTER_STATE(" + peerPrincipal + ":PLAIN)%"
	if proxy == Gateway {
		from = "%DOWNSTREAM_PEER_URI_SAN%"
	}
	return mutateRequest("isthmus.ratelimit-source",
		&rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Remove{Remove: sourceHeader}},
		&rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: sourceHeader, Value: from}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}}})
}

// forgetSource removes it again.
func forgetSource() *hcmv3.HttpFilter {
	return mutateRequest("isthmus.ratelimit-end", &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Remove{Remove: sourceHeader}})
}

func mutateRequest(name string, mutations ...*rulesv3.HeaderMutation) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(&mutationv3.HeaderMutation{
		Mutations: &mutationv3.Mutations{RequestMutations: mutations},
	})}}
}

// filter is the policy as Envoy's local rate limit. The default bucket, which it has for requests that no descriptor is configured for, is
// one that is never empty.
func (p RateLimit) filter() *localv3.LocalRateLimit {
	spec := &p.Spec
	out := &localv3.LocalRateLimit{
		StatPrefix:                      strings.ReplaceAll(p.Namespace+"/"+p.Name, ".", "_"),
		Status:                          &typev3.HttpStatus{Code: typev3.StatusCode(cmp.Or(spec.Response.Status, policyapi.DefaultStatus))},
		TokenBucket:                     tokens(policyapi.Rate{Requests: math.MaxUint32, Per: policyapi.Second}),
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		FilterEnabled:                   percent(100),
		FilterEnforced:                  percent(100),
		MaxDynamicDescriptors:           wrapperspb.UInt32(cmp.Or(spec.MaxKeys, policyapi.DefaultMaxKeys)),
		RateLimitedAsResourceExhausted:  spec.Response.GRPCStatus != policyapi.Unavailable,
		EnableRetryAfterHeader:          true,
		ResponseHeadersToAdd:            []*corev3.HeaderValueOption{responseHeader("x-envoy-ratelimited", "true")},
	}
	if spec.Mode == policyapi.DryRun {
		out.FilterEnforced = percent(0)
	}
	for _, h := range spec.Response.Headers {
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, responseHeader(strings.ToLower(h.Name), h.Value))
	}
	shown := routev3.RateLimit_UNSPECIFIED
	if spec.Response.RateLimitHeaders {
		shown = routev3.RateLimit_DRAFT_VERSION_03
	}
	for i := range spec.Limits {
		l := limitOf{&spec.Limits[i], cmp.Or(spec.Limits[i].Name, strconv.Itoa(i))}
		if len(p.Routes) == 0 {
			l.add(out, shown, nil, nil)
		}
		for _, ref := range p.Routes {
			actions, pairs := onlyRoute(p.Namespace, ref)
			l.add(out, shown, actions, pairs)
		}
		if len(l.FairShare) > 0 {
			out.RateLimits = append(out.RateLimits, &routev3.RateLimit{Actions: append([]*routev3.RateLimit_Action{generic(fairKey, l.id)}, keyActions(l.FairShare)...)})
		}
	}
	return out
}

// limitOf is a limit and the value by which its descriptors begin.
type limitOf struct {
	*policyapi.Limit
	id string
}

// add adds the descriptors of a limit: those with all keys, with the values of overrides, and for requests that lack some of the keys.
func (l limitOf) add(out *localv3.LocalRateLimit, shown routev3.RateLimit_XRateLimitOption, actions []*routev3.RateLimit_Action, pairs []*commonv3.RateLimitDescriptor_Entry) {
	all := append([]*routev3.RateLimit_Action{generic(limitKey, l.id)}, actions...)
	pairs = append([]*commonv3.RateLimitDescriptor_Entry{entry(limitKey, l.id)}, pairs...)
	out.RateLimits = append(out.RateLimits, &routev3.RateLimit{Actions: append(all, keyActions(l.By)...), XRatelimitOption: shown})
	add := func(more []*commonv3.RateLimitDescriptor_Entry, r policyapi.Rate) {
		out.Descriptors = append(out.Descriptors, &commonv3.LocalRateLimitDescriptor{Entries: append(slices.Clone(pairs), more...), TokenBucket: tokens(r)})
	}
	for _, o := range l.Overrides {
		var more []*commonv3.RateLimitDescriptor_Entry
		for i, k := range l.By {
			more = append(more, entry(keyName(k), o.Values[i]))
		}
		add(more, o.Rate)
	}
	for missing := range 1 << len(l.By) {
		var more []*commonv3.RateLimitDescriptor_Entry
		possible := true
		for i, k := range l.By {
			if missing&(1<<i) == 0 {
				more = append(more, entry(keyName(k), ""))
			} else {
				possible = possible && mayLack(k)
			}
		}
		if possible {
			add(more, l.Rate)
		}
	}
}

// onlyRoute is how descriptors are made for the requests of a route alone: it has metadata that say where it comes from.
func onlyRoute(namespace string, ref policyapi.TargetRef) ([]*routev3.RateLimit_Action, []*commonv3.RateLimitDescriptor_Entry) {
	const key = "object"
	object := routeObjectPath(ref.Kind, namespace, ref.Name)
	actions := []*routev3.RateLimit_Action{metadataAction(key, routev3.RateLimit_Action_MetaData_ROUTE_ENTRY, false, "istio", "config")}
	pairs := []*commonv3.RateLimitDescriptor_Entry{entry(key, object)}
	if ref.SectionName != "" {
		actions = append(actions, expression("rule", exprRoute))
		pairs = append(pairs, entry("rule", namespace+"."+ref.Name+"."+ref.SectionName))
	}
	return actions, pairs
}

func tokens(r policyapi.Rate) *typev3.TokenBucket {
	return &typev3.TokenBucket{
		MaxTokens: cmp.Or(r.Burst, r.Requests), TokensPerFill: wrapperspb.UInt32(r.Requests), FillInterval: durationpb.New(cmp.Or(r.Per.Duration(), time.Second)),
	}
}

func percent(n uint32) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: n}}
}

func entry(key, value string) *commonv3.RateLimitDescriptor_Entry {
	return &commonv3.RateLimitDescriptor_Entry{Key: key, Value: value}
}

// responseHeader is one whose value is no format.
func responseHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:         &corev3.HeaderValue{Key: name, Value: strings.ReplaceAll(value, "%", "%%")},
		AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		KeepEmptyValue: true,
	}
}

// RateLimitNamespaces are the namespaces of routes, where policies for them may be.
func RateLimitNamespaces(routes []RouteRef, more ...string) []string {
	set := map[string]bool{}
	for _, r := range routes {
		set[r.Namespace] = true
	}
	for _, ns := range more {
		set[ns] = true
	}
	return slices.Sorted(maps.Keys(set))
}
