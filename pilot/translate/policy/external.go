package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	meshapi "istio.io/api/mesh/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

const (
	extAuthzName = "envoy.filters.http.ext_authz"
	// customPrefix, the provider and a dash begin the names of CUSTOM policies, by which ext_authz knows what it is to ask about.
	customPrefix = "istio-ext-authz-"
	// customShadow begins the metadata that tells it.
	customShadow    = "istio_ext_authz_"
	shadowPolicy    = "shadow_effective_policy_id"
	badCustomSuffix = "-deny-due-to-bad-CUSTOM-action"
	// askTimeout is how long an authorizer may take where its provider says nothing.
	askTimeout = 600 * time.Second
	// maxAskedBody bounds what of a request's body an authorizer is told: proxies hold it meanwhile.
	maxAskedBody = 16 << 20
)

// custom is what CUSTOM policies of one provider ask.
type custom struct {
	provider string
	policies []*securityv1.AuthorizationPolicy
}

// customs are the CUSTOM policies by their providers, sorted. Those of a dry run have no effect: nobody is asked about them.
func (in Input) customs() []custom {
	by := map[string][]*securityv1.AuthorizationPolicy{}
	for _, p := range in.Policies {
		if p.Spec.GetAction() == securityapi.AuthorizationPolicy_CUSTOM && !isDryRun(p) {
			name := p.Spec.GetProvider().GetName()
			by[name] = append(by[name], p)
		}
	}
	var out []custom
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, custom{name, by[name]})
	}
	return out
}

// CustomServices are the services of the authorizers that CUSTOM policies name: what a proxy that enforces them needs a cluster of.
// visit is told each, as its provider names it.
func CustomServices(mesh *meshapi.MeshConfig, policies []*securityv1.AuthorizationPolicy, visit func(service string, port uint32)) {
	for _, c := range (Input{Policies: policies}).customs() {
		if p, err := findProvider(mesh, c.provider); err == nil {
			service, port := serviceOf(p)
			visit(service, port)
		}
	}
}

// customHTTP are the filters of a provider: rules that only note which requests are asked about, and who asks. Without anybody to ask, the same
// requests are denied.
func (in Input) customHTTP(c custom) []*hcmv3.HttpFilter {
	rules := in.customRules(c, false)
	filter, err := in.extAuthz(c)
	if err != nil {
		return []*hcmv3.HttpFilter{(&ruleSet{enforced: c.refuse(rules)}).httpFilter()}
	}
	return []*hcmv3.HttpFilter{
		(&ruleSet{shadow: rules, shadowPrefix: customShadow}).httpFilter(),
		{Name: extAuthzName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(filter)}},
	}
}

func customAction() action {
	return action{api: securityapi.AuthorizationPolicy_CUSTOM, envoy: rbacv3.RBAC_DENY}
}

func (in Input) customRules(c custom, tcp bool) *rbacv3.RBAC {
	out := &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{}}
	for _, p := range c.policies {
		addPolicy(out, in.translator(p, customAction(), tcp), p)
	}
	named := map[string]*rbacv3.Policy{}
	for name, p := range out.GetPolicies() {
		named[customPrefix+c.provider+"-"+name] = p
	}
	out.Policies = named
	return out
}

// refuse denies what would have been asked about.
func (c custom) refuse(rules *rbacv3.RBAC) *rbacv3.RBAC {
	out := &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{}}
	for name, p := range rules.GetPolicies() {
		out.Policies[strings.TrimPrefix(name, customPrefix+c.provider+"-")+badCustomSuffix] = p
	}
	return out
}

func findProvider(mesh *meshapi.MeshConfig, name string) (*meshapi.MeshConfig_ExtensionProvider, error) {
	for _, p := range mesh.GetExtensionProviders() {
		if p.GetName() != name {
			continue
		}
		if p.GetEnvoyExtAuthzHttp() == nil && p.GetEnvoyExtAuthzGrpc() == nil {
			return nil, fmt.Errorf("the provider %q of the mesh configuration is neither envoyExtAuthzHttp nor envoyExtAuthzGrpc", name)
		}
		return p, nil
	}
	return nil, fmt.Errorf("there is no provider %q among the extensionProviders of the mesh configuration", name)
}

func serviceOf(p *meshapi.MeshConfig_ExtensionProvider) (service string, port uint32) {
	if h := p.GetEnvoyExtAuthzHttp(); h != nil {
		return h.GetService(), h.GetPort()
	}
	return p.GetEnvoyExtAuthzGrpc().GetService(), p.GetEnvoyExtAuthzGrpc().GetPort()
}

// extAuthz makes the filter that asks a provider.
func (in Input) extAuthz(c custom) (*extauthzv3.ExtAuthz, error) {
	p, err := findProvider(in.Mesh, c.provider)
	if err != nil {
		return nil, err
	}
	service, port := serviceOf(p)
	if in.Authorizer == nil {
		return nil, errors.New("services are not known")
	}
	to, err := in.Authorizer(service, port)
	if err != nil {
		return nil, fmt.Errorf("provider %q: %w", c.provider, err)
	}
	out := &extauthzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		FilterEnabledMetadata: &matcherv3.MetadataMatcher{
			Filter: httpRBACName,
			Path: []*matcherv3.MetadataMatcher_PathSegment{{
				Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: customShadow + shadowPolicy},
			}},
			Value: stringValue(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: customPrefix + c.provider + "-ns["}}),
		},
	}
	if h := p.GetEnvoyExtAuthzHttp(); h != nil {
		err = askHTTP(out, h, to)
	} else {
		err = askGRPC(out, p.GetEnvoyExtAuthzGrpc(), to)
	}
	if err != nil {
		return nil, fmt.Errorf("provider %q: %w", c.provider, err)
	}
	return out, nil
}

// asker is what both kinds of providers say.
type asker interface {
	GetFailOpen() bool
	GetClearRouteCache() bool
	GetStatusOnError() string
	GetTimeout() *durationpb.Duration
	GetIncludeRequestBodyInCheck() *meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationRequestBody
}

var (
	_ asker = (*meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationHttpProvider)(nil)
	_ asker = (*meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider)(nil)
)

// common sets what both kinds of providers have, and returns how long an answer may take.
func common(out *extauthzv3.ExtAuthz, p asker) (*durationpb.Duration, error) {
	out.FailureModeAllow, out.ClearRouteCache = p.GetFailOpen(), p.GetClearRouteCache()
	if s := p.GetStatusOnError(); s != "" {
		code, err := strconv.ParseUint(s, 10, 16)
		status := typev3.StatusCode(code)
		if _, known := typev3.StatusCode_name[int32(status)]; err != nil || !known || code < 200 {
			return nil, fmt.Errorf("statusOnError: %q is no status of HTTP", s)
		}
		out.StatusOnError = &typev3.HttpStatus{Code: status}
	}
	if b := p.GetIncludeRequestBodyInCheck(); b != nil {
		if b.GetMaxRequestBytes() == 0 || b.GetMaxRequestBytes() > maxAskedBody {
			return nil, fmt.Errorf("includeRequestBodyInCheck.maxRequestBytes: %d is not between 1 and %d", b.GetMaxRequestBytes(), maxAskedBody)
		}
		out.WithRequestBody = &extauthzv3.BufferSettings{
			MaxRequestBytes: b.GetMaxRequestBytes(), AllowPartialMessage: b.GetAllowPartialMessage(), PackAsBytes: b.GetPackAsBytes(),
		}
	}
	t := p.GetTimeout()
	if t == nil {
		return durationpb.New(askTimeout), nil
	}
	if t.CheckValid() != nil || t.AsDuration() < time.Millisecond {
		return nil, fmt.Errorf("timeout: %s is not at least 1ms", t.AsDuration())
	}
	return t, nil
}

func askHTTP(out *extauthzv3.ExtAuthz, p *meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationHttpProvider, to Backend) error {
	timeout, err := common(out, p)
	if err != nil {
		return err
	}
	if p.GetPathPrefix() != "" && !strings.HasPrefix(p.GetPathPrefix(), "/") {
		return fmt.Errorf("pathPrefix: %q does not begin with /", p.GetPathPrefix())
	}
	service := &extauthzv3.HttpService{PathPrefix: p.GetPathPrefix(), ServerUri: &corev3.HttpUri{
		Uri: "http://" + to.Host, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: to.Cluster}, Timeout: timeout,
	}}
	told := p.GetIncludeRequestHeadersInCheck()
	if len(told) == 0 {
		told = p.GetIncludeHeadersInCheck() //nolint:staticcheck // the older name of the same list
	}
	out.AllowedHeaders = headerList(told)
	add := p.GetIncludeAdditionalHeadersInCheck()
	if len(add) > 0 {
		service.AuthorizationRequest = &extauthzv3.AuthorizationRequest{}
	}
	for _, name := range slices.Sorted(maps.Keys(add)) {
		if !isHeaderName(name) || strings.HasPrefix(name, ":") || strings.EqualFold(name, "host") {
			return fmt.Errorf("includeAdditionalHeadersInCheck: %q is not the name of a header", name)
		}
		if strings.ContainsAny(add[name], "\r\n\x00") {
			return fmt.Errorf("includeAdditionalHeadersInCheck: the value of %s is of more than one line", name)
		}
		service.AuthorizationRequest.HeadersToAdd = append(service.AuthorizationRequest.HeadersToAdd, &corev3.HeaderValue{
			Key: name, Value: strings.ReplaceAll(add[name], "%", "%%"),
		})
	}
	if len(p.GetHeadersToUpstreamOnAllow())+len(p.GetHeadersToDownstreamOnAllow())+len(p.GetHeadersToDownstreamOnDeny()) > 0 {
		service.AuthorizationResponse = &extauthzv3.AuthorizationResponse{
			AllowedUpstreamHeaders: headerList(p.GetHeadersToUpstreamOnAllow()), AllowedClientHeaders: headerList(p.GetHeadersToDownstreamOnDeny()),
			AllowedClientHeadersOnSuccess: headerList(p.GetHeadersToDownstreamOnAllow()),
		}
	}
	out.Services = &extauthzv3.ExtAuthz_HttpService{HttpService: service}
	return nil
}

func askGRPC(out *extauthzv3.ExtAuthz, p *meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider, to Backend) error {
	timeout, err := common(out, p)
	if err != nil {
		return err
	}
	if !to.HTTP2 {
		return fmt.Errorf("port %d of %s is not declared as grpc or http2, by name or appProtocol", p.GetPort(), to.Host)
	}
	out.Services = &extauthzv3.ExtAuthz_GrpcService{GrpcService: grpcService(to, timeout)}
	return nil
}

func grpcService(to Backend, timeout *durationpb.Duration) *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: to.Cluster, Authority: to.Host}},
		Timeout:         timeout,
	}
}

// headerList are names of headers, exact or with a star at one end. Case does not matter.
func headerList(names []string) *matcherv3.ListStringMatcher {
	var out []*matcherv3.StringMatcher
	for _, name := range names {
		if name == "" || name == "*" {
			continue // as for rules, * alone is not one of the forms
		}
		out = append(out, stringMatcher(name, true))
	}
	if len(out) == 0 {
		return nil
	}
	return &matcherv3.ListStringMatcher{Patterns: out}
}
