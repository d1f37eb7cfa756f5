package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/emptypb"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

const jwtFilterName = "envoy.filters.http.jwt_authn"

// wellKnown is where an issuer that serves OpenID Connect says where its keys are.
const wellKnown = "/.well-known/openid-configuration"

// JWKSSources names the documents that an object's rules need fetched: URIs of key sets, or, for a rule that has neither a key set
// nor a URI, the issuer's OpenID configuration (IsDiscovery), which names the key set.
func JWKSSources(ra *securityv1.RequestAuthentication) []string {
	var out []string
	for _, rule := range ra.Spec.GetJwtRules() {
		if source := jwksSource(rule); source != "" && !slices.Contains(out, source) {
			out = append(out, source)
		}
	}
	return out
}

// IsDiscovery tells an OpenID configuration from a key set.
func IsDiscovery(source string) bool { return strings.HasSuffix(source, wellKnown) }

func jwksSource(rule *securityapi.JWTRule) string {
	switch {
	case rule.GetJwks() != "":
		return ""
	case rule.GetJwksUri() != "":
		return rule.GetJwksUri()
	}
	return strings.TrimSuffix(rule.GetIssuer(), "/") + wellKnown
}

// jwtFilter returns nil when there is no rule.
func jwtFilter(in Input) *hcmv3.HttpFilter {
	rules := jwtRules(in.RequestAuthentications)
	if len(rules) == 0 {
		return nil
	}
	config := &jwtv3.JwtAuthentication{Providers: map[string]*jwtv3.JwtProvider{}, BypassCorsPreflight: true}
	var any, all []*jwtv3.JwtRequirement
	for i, rule := range rules {
		name := fmt.Sprintf("origins-%d", i)
		config.Providers[name] = in.provider(rule)
		provider := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name}}
		missing := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}}
		any = append(any, provider)
		all = append(all, requiresAny(provider, missing))
	}
	// One token that some provider accepts is enough, since providers may look in the same place; else each must accept what it
	// finds, and finding nothing is fine.
	requires := all[0]
	if len(all) > 1 {
		requires = requiresAny(append(any, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_RequiresAll{RequiresAll: &jwtv3.JwtRequirementAndList{Requirements: all}},
		})...)
	}
	config.Rules = []*jwtv3.RequirementRule{{
		Match:           &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		RequirementType: &jwtv3.RequirementRule_Requires{Requires: requires},
	}}
	return &hcmv3.HttpFilter{Name: jwtFilterName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(config)}}
}

func requiresAny(rs ...*jwtv3.JwtRequirement) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: rs}}}
}

// jwtRules of all objects, by issuer; the order of objects does not matter.
func jwtRules(all []*securityv1.RequestAuthentication) []*securityapi.JWTRule {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *securityv1.RequestAuthentication) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	var out []*securityapi.JWTRule
	for _, ra := range all {
		for _, rule := range ra.Spec.GetJwtRules() {
			if rule != nil {
				out = append(out, rule)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *securityapi.JWTRule) int { return strings.Compare(a.GetIssuer(), b.GetIssuer()) })
	return out
}

func (in Input) provider(rule *securityapi.JWTRule) *jwtv3.JwtProvider {
	p := &jwtv3.JwtProvider{
		Issuer:            rule.GetIssuer(),
		Audiences:         rule.GetAudiences(),
		Forward:           rule.GetForwardOriginalToken(),
		PayloadInMetadata: payloadKey,
		NormalizePayloadInMetadata: &jwtv3.JwtProvider_NormalizePayload{
			SpaceDelimitedClaims: spaceDelimited(rule.GetSpaceDelimitedClaims()),
		},
		ClearRouteCache: in.Proxy == Gateway, // routes of a gateway may depend on claims
		FromParams:      rule.GetFromParams(),
		FromCookies:     rule.GetFromCookies(),
		JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: in.jwks(rule)},
		}},
	}
	if h := rule.GetOutputPayloadToHeader(); isHeaderName(h) {
		p.ForwardPayloadHeader = h
	}
	for _, h := range rule.GetFromHeaders() {
		if !isHeaderName(h.GetName()) {
			continue // no request has it
		}
		p.FromHeaders = append(p.FromHeaders, &jwtv3.JwtHeader{Name: h.GetName(), ValuePrefix: h.GetPrefix()})
	}
	for _, c := range rule.GetOutputClaimToHeaders() {
		if !isHeaderName(c.GetHeader()) || c.GetClaim() == "" {
			continue
		}
		p.ClaimToHeaders = append(p.ClaimToHeaders, &jwtv3.JwtClaimToHeader{HeaderName: c.GetHeader(), ClaimName: c.GetClaim()})
	}
	return p
}

func spaceDelimited(more []string) []string {
	out := []string{"permission", "scope"}
	for _, c := range more {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// jwks returns the keys of a rule; without any that can be used, one for which nobody has the private half.
func (in Input) jwks(rule *securityapi.JWTRule) string {
	text, ok := rule.GetJwks(), true
	if source := jwksSource(rule); source != "" {
		ok = in.JWKS != nil
		if ok {
			text, ok = in.JWKS(source)
		}
	}
	if ok {
		text, ok = usableKeys(text)
	}
	if !ok {
		return lockedJWKS()
	}
	return text
}

// lockedJWKS is a key set that verifies nothing: the modulus of its key is a hash of a sentence, so that its factors are unknown.
func lockedJWKS() string {
	modulus := make([]byte, 0, 256)
	for i := byte(0); len(modulus) < 256; i++ {
		sum := sha256.Sum256(append([]byte("the keys of this issuer have not been fetched "), i))
		modulus = append(modulus, sum[:]...)
	}
	modulus[0] |= 0x80
	modulus[255] |= 1
	return fmt.Sprintf(`{"keys":[{"e":"AQAB","kid":"not-fetched","kty":"RSA","n":%q}]}`, base64.RawURLEncoding.EncodeToString(modulus))
}
