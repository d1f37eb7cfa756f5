package policy

import (
	"strings"
	"testing"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// limitsOf decodes policies of namespace shop: "NAME: SPEC" each.
func limitsOf(t testing.TB, specs ...string) (out []*policyapi.RateLimitPolicy) {
	t.Helper()
	for _, text := range specs {
		name, spec, _ := strings.Cut(text, ": ")
		decoded, errs := kube.Decode("test", []byte("apiVersion: policy.isthmus.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: "+name+", namespace: shop}\nspec: "+spec))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		p, ok := decoded[0].Object.(*policyapi.RateLimitPolicy)
		if !ok {
			t.Fatalf("a %T", decoded[0].Object)
		}
		if errs := kube.Validate(p); len(errs) > 0 {
			t.Fatal(errs)
		}
		out = append(out, p)
	}
	return out
}

const someLimit = "limits: [{requests: 5, per: Second}]"

func TestAttachedRateLimits(t *testing.T) {
	t.Parallel()
	const gatewayAPI = "group: gateway.networking.k8s.io, "
	all := limitsOf(t,
		"service: {targetRefs: [{kind: Service, name: reviews}], "+someLimit+"}",
		"entry: {targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: reviews}], "+someLimit+"}",
		"waypoint: {targetRefs: [{"+gatewayAPI+"kind: Gateway, name: wp}], "+someLimit+"}",
		"route: {targetRefs: [{"+gatewayAPI+"kind: HTTPRoute, name: r}, {"+gatewayAPI+"kind: HTTPRoute, name: other}, {"+gatewayAPI+"kind: GRPCRoute, name: r}], "+someLimit+"}",
		"rules: {targetRefs: [{"+gatewayAPI+"kind: HTTPRoute, name: r, sectionName: a}, {"+gatewayAPI+"kind: HTTPRoute, name: r, sectionName: b}], "+someLimit+"}",
		"both: {targetRefs: [{"+gatewayAPI+"kind: HTTPRoute, name: r}, {kind: Service, name: reviews}], "+someLimit+"}",
	)
	chain := Target{Proxy: Waypoint, Namespace: "shop", Gateway: "wp", Services: []ServiceRef{{KindService, "shop", "reviews"}}}
	names := func(list []RateLimit) string {
		var out []string
		for _, p := range list {
			text := p.Name
			for _, r := range p.Routes {
				text += " " + r.Kind + "/" + r.Name + "/" + r.SectionName
			}
			out = append(out, text)
		}
		return strings.Join(out, ", ")
	}
	for _, c := range []struct {
		name   string
		target Target
		routes []RouteRef
		want   string
	}{
		{"a service", chain, nil, "both, service, waypoint"},
		{"with its route", chain, []RouteRef{{"HTTPRoute", "shop", "r"}}, "both, route HTTPRoute/r/, rules HTTPRoute/r/a HTTPRoute/r/b, service, waypoint"},
		{"a route of another namespace", chain, []RouteRef{{"HTTPRoute", "elsewhere", "r"}}, "both, service, waypoint"},
		{"another service", Target{Proxy: Waypoint, Namespace: "shop", Gateway: "wp", Services: []ServiceRef{{KindService, "shop", "ratings"}}}, nil, "waypoint"},
		{"of another namespace", Target{Proxy: Waypoint, Namespace: "elsewhere", Gateway: "wp", Services: []ServiceRef{{KindService, "elsewhere", "reviews"}}}, nil, ""},
		{"a gateway", Target{Proxy: Gateway, Namespace: "shop", Gateway: "edge"}, []RouteRef{{"GRPCRoute", "shop", "r"}}, "route GRPCRoute/r/"},
	} {
		if got := names(AttachedRateLimits(c.target, c.routes, all)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// filterOf is the local rate limit among filters, which are all such that Envoy takes them.
func filterOf(t testing.TB, filters []*hcmv3.HttpFilter) *localv3.LocalRateLimit {
	t.Helper()
	var out *localv3.LocalRateLimit
	for _, f := range filters {
		l, m := &localv3.LocalRateLimit{}, &mutationv3.HeaderMutation{}
		switch {
		case f.GetTypedConfig().MessageIs(l):
			if err := f.GetTypedConfig().UnmarshalTo(l); err != nil {
				t.Fatal(err)
			}
			if err := l.ValidateAll(); err != nil {
				t.Errorf("%s: %v", f.GetName(), err)
			}
			out = l
		case f.GetTypedConfig().MessageIs(m):
			if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
				t.Fatal(err)
			}
			if err := m.ValidateAll(); err != nil {
				t.Errorf("%s: %v", f.GetName(), err)
			}
		default:
			t.Errorf("%s is a %s", f.GetName(), f.GetTypedConfig().GetTypeUrl())
		}
	}
	return out
}

// pairs are the descriptors as text.
func pairs(l *localv3.LocalRateLimit) string {
	var out []string
	for _, d := range l.GetDescriptors() {
		var one []string
		for _, e := range d.GetEntries() {
			one = append(one, e.GetKey()+"="+e.GetValue())
		}
		b := d.GetTokenBucket()
		out = append(out, strings.Join(one, ",")+" "+b.GetFillInterval().AsDuration().String())
	}
	return strings.Join(out, "\n")
}

func TestRateLimitDescriptors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, spec string
		routes     []policyapi.TargetRef
		want       string
	}{
		{"all together", someLimit, nil, "limit=0 1s"},
		{"by a header", "limits: [{name: each, requests: 5, per: Hour, by: [{type: Header, name: X-User}]}]", nil, "limit=each,header:x-user= 1h0m0s\nlimit=each 1h0m0s"},
		{
			"by two that may be missing", "limits: [{requests: 5, per: Second, by: [{type: Claim, name: sub}, {type: Identity}]}]", nil,
			"limit=0,claim:sub=,Identity= 1s\nlimit=0,Identity= 1s\nlimit=0,claim:sub= 1s\nlimit=0 1s",
		},
		{"by what every request has", "limits: [{requests: 5, per: Second, by: [{type: Path}, {type: RemoteAddress}]}]", nil, "limit=0,Path=,remote_address= 1s"},
		{
			"values of their own", "limits: [{requests: 5, per: Second, by: [{type: Method}], overrides: [{values: [POST], requests: 1, per: Minute}]}]", nil,
			"limit=0,Method=POST 1m0s\nlimit=0,Method= 1s",
		},
		{"divided", "limits: [{requests: 5, per: Second, fairShare: [{type: Namespace}]}]", nil, "limit=0 1s"},
		{
			"routes", someLimit,
			[]policyapi.TargetRef{{Kind: "HTTPRoute", Name: "r"}, {Kind: "GRPCRoute", Name: "g", SectionName: "s"}},
			"limit=0,object=/apis/gateway.networking.k8s.io/v1/namespaces/shop/http-route/r 1s\nlimit=0,object=/apis/gateway.networking.k8s.io/v1/namespaces/shop/grpc-route/g,rule=shop.g.s 1s",
		},
	} {
		p := limitsOf(t, "p: {targetRefs: [{kind: Service, name: reviews}], "+c.spec+"}")[0]
		filters := RateLimitFilters(Waypoint, []RateLimit{{p, c.routes}})
		l := filterOf(t, filters)
		if got := pairs(l); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
		if own := len(filters) == 3; own != strings.Contains(c.spec, "Identity") && own != strings.Contains(c.spec, "Namespace") {
			t.Errorf("%s: %d filters", c.name, len(filters))
		}
		if l.GetStatPrefix() != "shop/p" || l.GetAlwaysConsumeDefaultTokenBucket().GetValue() || l.GetFilterEnforced().GetDefaultValue().GetNumerator() != 100 {
			t.Errorf("%s: %v", c.name, l)
		}
	}
}

func TestRateLimitResponses(t *testing.T) {
	t.Parallel()
	p := limitsOf(t, "p: {targetRefs: [{kind: Service, name: reviews}], mode: DryRun, maxKeys: 7, limits: [{requests: 5, per: Second, burst: 9}], response: {status: 503, grpcStatus: Unavailable, rateLimitHeaders: true, headers: [{name: X-Why, value: \"100%\"}]}}")[0]
	l := filterOf(t, RateLimitFilters(Gateway, []RateLimit{{RateLimitPolicy: p}}))
	added := l.GetResponseHeadersToAdd()
	b := l.GetDescriptors()[0].GetTokenBucket()
	if l.GetStatus().GetCode() != 503 || l.GetRateLimitedAsResourceExhausted() || l.GetFilterEnforced().GetDefaultValue().GetNumerator() != 0 ||
		l.GetMaxDynamicDescriptors().GetValue() != 7 || len(added) != 2 || added[1].GetHeader().GetKey() != "x-why" || added[1].GetHeader().GetValue() != "100%%" ||
		b.GetMaxTokens() != 9 || b.GetTokensPerFill().GetValue() != 5 {
		t.Errorf("%v", l)
	}
}

// FuzzRateLimitFilters: what validation lets pass makes filters that Envoy's validation takes.
func FuzzRateLimitFilters(f *testing.F) {
	f.Add("{targetRefs: [{kind: Service, name: a}], limits: [{requests: 5, per: Second, by: [{type: Header, name: x}], overrides: [{values: [v], requests: 1, per: Day}]}]}")
	f.Add("{targetRefs: [{kind: Service, name: a}], limits: [{requests: 1, per: Hour, fairShare: [{type: Claim, name: '%'}]}], response: {headers: [{name: a, value: '%REQ(x)%'}]}}")
	f.Fuzz(func(t *testing.T, spec string) {
		decoded, _ := kube.Decode("test", []byte("apiVersion: policy.isthmus.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: a, namespace: shop}\nspec: "+spec))
		for _, d := range decoded {
			p, ok := d.Object.(*policyapi.RateLimitPolicy)
			if ok && len(kube.Validate(p)) == 0 {
				filterOf(t, RateLimitFilters(Waypoint, []RateLimit{{RateLimitPolicy: p}}))
			}
		}
	})
}
