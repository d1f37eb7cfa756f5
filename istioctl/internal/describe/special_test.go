package describe

import (
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
)

// TestSpecial: who is asked by a CUSTOM policy, and that a dry run refuses nothing.
func TestSpecial(t *testing.T) {
	t.Parallel()
	m, err := New(simulate.Settings{MeshConfig: []byte(`extensionProviders:
- {name: opa, envoyExtAuthzGrpc: {service: opa.shop.svc.cluster.local, port: 9191}}
- {name: login, envoyExtAuthzHttp: {service: login.shop.svc.cluster.local, port: 80}}
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for provider, want := range map[string]string{
		"opa":   " (asks opa at opa.shop.svc.cluster.local:9191 by gRPC)",
		"login": " (asks login at login.shop.svc.cluster.local:80 by HTTP)",
		"none":  ` (WARNING: the mesh configuration has no provider "none" that can be asked: what it matches is denied)`,
	} {
		one := &securityv1.AuthorizationPolicy{}
		one.Spec.Action = securityapi.AuthorizationPolicy_CUSTOM
		one.Spec.ActionDetail = &securityapi.AuthorizationPolicy_Provider{Provider: &securityapi.AuthorizationPolicy_ExtensionProvider{Name: provider}}
		if got := m.special(one); got != want {
			t.Errorf("%s: %q", provider, got)
		}
	}
	dry := &securityv1.AuthorizationPolicy{}
	if got := m.special(dry); got != "" {
		t.Error(got)
	}
	dry.Annotations = map[string]string{"istio.io/dry-run": "true"}
	if got := m.special(dry); got != " (dry run: it only counts and logs)" {
		t.Error(got)
	}
}

func TestTrafficPolicy(t *testing.T) {
	t.Parallel()
	r := &networkingv1.DestinationRule{}
	if got := trafficPolicy(r); got != "No Traffic Policy" {
		t.Error(got)
	}
	r.Spec.TrafficPolicy = &networkingapi.TrafficPolicy{
		Tls:           &networkingapi.ClientTLSSettings{Mode: networkingapi.ClientTLSSettings_MUTUAL, CredentialName: "api"},
		LoadBalancer:  &networkingapi.LoadBalancerSettings{LocalityLbSetting: &networkingapi.LocalityLoadBalancerSetting{}},
		ProxyProtocol: &networkingapi.TrafficPolicy_ProxyProtocol{Version: networkingapi.TrafficPolicy_ProxyProtocol_V2},
		RetryBudget:   &networkingapi.TrafficPolicy_RetryBudget{},
	}
	if got := trafficPolicy(r); got != "Traffic Policy TLS Mode: MUTUAL with credential api; load balancer; localities; PROXY protocol V2; retry budget" {
		t.Error(got)
	}
}
