package policy

import (
	"strings"
	"testing"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/yaml"
)

// finder knows objects as kind/namespace/name, and the proxy of each.
type finder map[string]string

func (f finder) Find(kind, namespace, name string) (bool, string) {
	proxy, ok := f[kind+"/"+namespace+"/"+name]
	return ok, proxy
}

func TestAuthorizationPolicyConditions(t *testing.T) {
	find := finder{"Service/default/reviews": "default/waypoint", "Service/default/free": "", "Gateway/default/waypoint": "default/waypoint"}
	const reviews = "targetRefs: [{kind: Service, name: reviews}]"
	tests := []struct {
		spec, reason, message string
	}{
		{"{}", "", ""},
		{"{selector: {matchLabels: {app: x}}}", "", ""},
		{"{" + reviews + "}", ReasonAccepted, "bound to default/waypoint"},
		{"{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}", ReasonAccepted, "default/waypoint"},
		{"{targetRefs: [{kind: Service, name: free}]}", ReasonAncestorNotBound, "Service default/free is not bound to a waypoint"},
		{"{targetRefs: [{kind: Service, name: gone}]}", ReasonTargetNotFound, "Service default/gone was not found"},
		{"{targetRefs: [{kind: Service, name: reviews}, {kind: Service, name: gone}]}", ReasonTargetNotFound, "Service default/gone was not found"},
		{"{targetRefs: [{kind: Pod, name: gone}]}", ReasonTargetNotFound, "kind that policies are not attached to"},
		{"{targetRefs: [{kind: Service, name: reviews, namespace: x}]}", ReasonTargetNotFound, "in another namespace"},
		{"{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]}", ReasonTargetNotFound, "only from the root namespace"},
		{"{" + reviews + ", action: CUSTOM}", ReasonInvalid, `there is no provider ""`},
		{"{" + reviews + ", action: CUSTOM, provider: {name: nobody}, rules: [{}]}", ReasonInvalid, "what the rules match is denied"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: tracing}, rules: [{}]}", ReasonInvalid, "neither envoyExtAuthzHttp nor envoyExtAuthzGrpc"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: gone}, rules: [{}]}", ReasonInvalid, "there is no service gone.example"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: plain-grpc}, rules: [{}]}", ReasonInvalid, "not declared as grpc"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: bad-status}, rules: [{}]}", ReasonInvalid, "statusOnError"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: bad-body}, rules: [{}]}", ReasonInvalid, "maxRequestBytes"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: bad-path}, rules: [{}]}", ReasonInvalid, "pathPrefix"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: bad-header}, rules: [{}]}", ReasonInvalid, "includeAdditionalHeadersInCheck"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: by-http}, rules: [{}]}", ReasonAccepted, "default/waypoint"},
		{"{" + reviews + ", action: CUSTOM, provider: {name: by-http}, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", ReasonPartiallyInvalid, "not known yet"},
		{"{" + reviews + ", rules: [{when: [{key: request.colour, values: [red]}]}]}", ReasonInvalid, "request.colour is not a known attribute"},
		{"{" + reviews + ", rules: [{}, {when: [{key: request.colour, values: [red]}]}]}", ReasonPartiallyInvalid, "less is allowed"},
		{"{" + reviews + ", action: DENY, rules: [{from: [{source: {ipBlocks: [x]}}]}]}", ReasonPartiallyInvalid, "match more"},
	}
	for _, tt := range tests {
		got := AuthorizationPolicyConditions(Input{Mesh: askMesh(), Authorizer: testAuthorizer}, parse(t, tt.spec), find)
		if tt.reason == "" {
			if len(got) != 0 {
				t.Errorf("%s: %v, want no condition", tt.spec, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Reason != tt.reason || got[0].True != (tt.reason == ReasonAccepted) || !strings.Contains(got[0].Message, tt.message) {
			t.Errorf("%s: %v, want %s with %q", tt.spec, got, tt.reason, tt.message)
		}
	}
}

func TestRequestAuthenticationConditions(t *testing.T) {
	find := finder{"Service/default/reviews": "default/waypoint"}
	tests := map[string]string{
		"{jwtRules: [{issuer: x}]}": "",
		"{targetRefs: [{kind: Service, name: reviews}], jwtRules: [{issuer: x, jwksUri: 'https://a.example/keys'}]}": ReasonAccepted,
		"{targetRefs: [{kind: Service, name: reviews}], jwtRules: [{issuer: x, jwksUri: 'https://b.example/keys'}]}": ReasonPartiallyInvalid,
		"{targetRefs: [{kind: Service, name: reviews}], jwtRules: [{issuer: x, jwks: '{}'}]}":                        ReasonPartiallyInvalid,
		"{targetRefs: [{kind: Service, name: gone}], jwtRules: [{issuer: x, jwks: '{}'}]}":                           ReasonTargetNotFound,
	}
	for spec, want := range tests {
		ra := &securityv1.RequestAuthentication{}
		if err := yaml.Unmarshal([]byte("metadata: {namespace: default}\nspec: "+spec), ra); err != nil {
			t.Fatal(err)
		}
		got := RequestAuthenticationConditions(testMesh(), ra, testJWKS, find)
		if want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Reason != want {
			t.Errorf("%s: %v, want %s", spec, got, want)
		}
	}
}
