package status

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

const (
	groupGateway    = "gateway.networking.k8s.io"
	groupNetworking = "networking.istio.io"
	groupSecurity   = "security.istio.io"
	groupTelemetry  = "telemetry.istio.io"
	groupExtensions = "extensions.istio.io"
)

// kinds are those that the registry judges, in the versions in which it writes their statuses.
func kinds() (out []schema.GroupVersionKind) {
	for _, k := range []struct {
		group, version string
		kinds          []string
	}{
		{"", "v1", []string{"Service"}},
		{groupNetworking, "v1", []string{"ServiceEntry", "WorkloadEntry", "VirtualService", "DestinationRule", "Gateway"}},
		{groupNetworking, "v1alpha3", []string{"EnvoyFilter"}},
		{groupSecurity, "v1", []string{"AuthorizationPolicy", "RequestAuthentication"}},
		{groupTelemetry, "v1", []string{"Telemetry"}},
		{policyapi.Group, policyapi.Version, []string{policyapi.KindRateLimitPolicy}},
		{groupExtensions, "v1alpha1", []string{"WasmPlugin"}},
		{groupGateway, "v1", []string{"GatewayClass", "Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "BackendTLSPolicy"}},
	} {
		for _, kind := range k.kinds {
			out = append(out, schema.GroupVersionKind{Group: k.group, Version: k.version, Kind: kind})
		}
	}
	return out
}

// versions are those in which a kind may be served, the newest first. Routes of connections were long in none but early ones.
func versions(kind schema.GroupVersionKind) []string {
	if kind.Group == groupGateway {
		switch kind.Kind {
		case "TLSRoute":
			return []string{kind.Version, "v1alpha3", "v1alpha2"}
		case "TCPRoute":
			return []string{kind.Version, "v1alpha2"}
		}
	}
	return []string{kind.Version}
}

// plural is the resource of a kind.
func plural(kind string) string {
	name := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(name, "ss"):
		return name + "es"
	case strings.HasSuffix(name, "y") && !strings.HasSuffix(name, "ay"):
		return strings.TrimSuffix(name, "y") + "ies"
	}
	return name + "s"
}
