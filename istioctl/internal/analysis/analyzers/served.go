package analyzers

import (
	"slices"

	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	networkingv1beta1 "istio.io/client-go/pkg/apis/networking/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// servedAnalyzers look for what this mesh does not do, and for what the mesh's configuration should have.
func servedAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "served.KindAnalyzer", Description: "Checks for objects of kinds that have no effect in this mesh",
			Codes: []analysis.Code{analysis.KindNotServed}, Run: kindsNotServed,
		},
		{
			Name: "served.ProviderAnalyzer", Description: "Checks that the extension providers that objects name are in the mesh's configuration, with their services",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound}, Run: extensionProviders,
		},
		{
			Name: "served.ClientCredentialAnalyzer", Description: "Checks that the Secrets are there that DestinationRules name for TLS",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound}, Run: clientCredentials,
		},
	}
}

func kindsNotServed(s *analysis.Snapshot) (out analysis.Messages) {
	for r := range analysis.All[*networkingv1alpha3.EnvoyFilter](s) {
		out.Add(analysis.KindNotServed, r, "kind", "EnvoyFilter", "use the API for what it does (VirtualService, HTTPRoute, Telemetry, AuthorizationPolicy)")
	}
	for r := range analysis.All[*extensionsv1alpha1.WasmPlugin](s) {
		out.Add(analysis.KindNotServed, r, "kind", "WasmPlugin", "use an external authorizer (AuthorizationPolicy with action CUSTOM)")
	}
	for r := range analysis.All[*networkingv1beta1.ProxyConfig](s) {
		out.Add(analysis.KindNotServed, r, "kind", "ProxyConfig", "waypoints and gateways are not configured by it; use defaultConfig of the mesh configuration, or the parameters of the Gateway")
	}
	return out
}

// builtin are the providers that are there without configuration.
func builtin(name string) bool {
	return slices.Contains([]string{"prometheus", "envoy", "stackdriver"}, name)
}

func extensionProviders(s *analysis.Snapshot) (out analysis.Messages) {
	if !s.Configured {
		return nil
	}
	for r, t := range analysis.All[*telemetryv1.Telemetry](s) {
		check := func(list string, i, j int, name string) {
			field := at(at("spec."+list, i)+".providers", j) + ".name"
			if name == "" || builtin(name) {
				return
			}
			if !providerKnown(s, name) {
				out.Add(analysis.ReferencedResourceNotFound, r, field, "extension provider", name)
				return
			}
			providerService(s, &out, r, field, name)
		}
		for i, x := range t.Spec.GetAccessLogging() {
			for j, p := range x.GetProviders() {
				check("accessLogging", i, j, p.GetName())
			}
		}
		for i, x := range t.Spec.GetTracing() {
			for j, p := range x.GetProviders() {
				check("tracing", i, j, p.GetName())
			}
		}
		for i, x := range t.Spec.GetMetrics() {
			for j, p := range x.GetProviders() {
				check("metrics", i, j, p.GetName())
			}
		}
	}
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		if ap.Spec.GetAction() == securityapi.AuthorizationPolicy_CUSTOM {
			providerService(s, &out, r, "spec.provider.name", ap.Spec.GetProvider().GetName())
		}
	}
	return out
}

// providerService looks for the service of a provider.
func providerService(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, field, name string) {
	i := slices.IndexFunc(s.Mesh.GetExtensionProviders(), func(p *meshapi.MeshConfig_ExtensionProvider) bool { return p.GetName() == name })
	if i < 0 || !s.Known("Service") {
		return
	}
	service := serviceOf(s.Mesh.GetExtensionProviders()[i])
	from := r.Namespace
	for j, c := range service {
		if c == '/' {
			from, service = service[:j], service[j+1:]
			break
		}
	}
	// Of files alone, the services of a mesh need not be among them.
	if service != "" && s.Live && s.Host(service, from) == nil && !s.Covered(service, from) {
		out.Add(analysis.ReferencedResourceNotFound, r, field, "service of extension provider "+name, service)
	}
}

// serviceOf is where a provider is; empty for one that is nowhere.
func serviceOf(p *meshapi.MeshConfig_ExtensionProvider) string {
	for _, service := range []string{
		p.GetEnvoyExtAuthzHttp().GetService(), p.GetEnvoyExtAuthzGrpc().GetService(), p.GetZipkin().GetService(), p.GetOpentelemetry().GetService(),
		p.GetEnvoyOtelAls().GetService(), p.GetEnvoyHttpAls().GetService(), p.GetEnvoyTcpAls().GetService(),
	} {
		if service != "" {
			return service
		}
	}
	return ""
}

// clientCredentials looks for the Secrets of DestinationRules, in files that have Secrets: of a mesh that runs, only those of gateways are read.
func clientCredentials(s *analysis.Snapshot) (out analysis.Messages) {
	if s.Live || !analysis.Has[*corev1.Secret](s) {
		return nil
	}
	names := map[string]bool{}
	for r := range analysis.All[*corev1.Secret](s) {
		names[r.Name] = true
	}
	for r, dr := range analysis.All[*networkingv1.DestinationRule](s) {
		check := func(t *networkingapi.ClientTLSSettings, field string) {
			if name := t.GetCredentialName(); name != "" && !names[name] && !names[name+"-cacert"] {
				out.Add(analysis.ReferencedResourceNotFound, r, field+".tls.credentialName", "credentialName", name)
			}
		}
		every := func(p *networkingapi.TrafficPolicy, field string) {
			check(p.GetTls(), field)
			for i, port := range p.GetPortLevelSettings() {
				check(port.GetTls(), at(field+".portLevelSettings", i))
			}
		}
		every(dr.Spec.GetTrafficPolicy(), "spec.trafficPolicy")
		for i, subset := range dr.Spec.GetSubsets() {
			every(subset.GetTrafficPolicy(), at("spec.subsets", i)+".trafficPolicy")
		}
	}
	return out
}
