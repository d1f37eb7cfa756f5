package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// profiles are those that are run.
func profiles() []suite.ConformanceProfile {
	return []suite.ConformanceProfile{
		suite.GatewayHTTPConformanceProfile, suite.GatewayGRPCConformanceProfile, suite.GatewayTLSConformanceProfile,
		suite.MeshHTTPConformanceProfile, suite.MeshGRPCConformanceProfile,
	}
}

// unclaimed are the features of the profiles that are not claimed, with the reason. All others are, and have to pass.
func unclaimed() map[features.FeatureName]string {
	const (
		notYet       = "not built yet"
		experimental = "its field is not in the standard channel of the Gateway API, which is what is installed"
	)
	return map[features.FeatureName]string{
		features.SupportGatewayBackendClientCertificate:                            "a Gateway's own certificate for backends: " + notYet + "; a DestinationRule names one",
		features.SupportGatewayStaticAddresses:                                     "a Gateway that names several addresses, or host names, says where somebody else has deployed it, as in Istio; one address is passed to the load balancer",
		features.SupportGatewayHTTPSListenerDetectMisdirectedRequests:              "the server name of a connection is not compared with the host of each request on it, as in Istio: 404 rather than 421",
		features.SupportGatewayFrontendClientCertificateValidationInsecureFallback: "a certificate that nobody vouches for would be told to backends as the client's",
		features.SupportHTTPRouteRetry:                                             experimental,
		features.SupportHTTPRouteRetryBackendTimeout:                               experimental,
		features.SupportHTTPRouteRetryConnectionError:                              experimental,
	}
}

// known are all features of the profiles.
func known() map[features.FeatureName]bool {
	out := map[features.FeatureName]bool{}
	for _, p := range profiles() {
		for _, name := range append(p.CoreFeatures.UnsortedList(), p.ExtendedFeatures.UnsortedList()...) {
			out[name] = true
		}
	}
	return out
}

// supported are the features that are claimed.
func supported() []features.FeatureName {
	var out []features.FeatureName
	not := unclaimed()
	for name := range known() {
		if not[name] == "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// reasons are the comments that the report begins with.
func reasons() string {
	var out strings.Builder
	out.WriteString("# Features that are not claimed:\n")
	not := unclaimed()
	for _, name := range slices.Sorted(maps.Keys(not)) {
		fmt.Fprintf(&out, "# %s: %s\n", name, not[name])
	}
	return out.String()
}

// TestClaims: every reason is of a feature that there is, and a GatewayClass says what is claimed here; it also says what no profile
// that is run asks for.
func TestClaims(t *testing.T) {
	all := known()
	for name := range unclaimed() {
		if !all[name] {
			t.Errorf("%s is in none of the profiles: it needs no reason", name)
		}
	}
	status := gateway.GatewayClassStatus(&gatewayv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: "istio"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gateway.GatewayController},
	})
	said := map[features.FeatureName]bool{}
	for _, f := range status.SupportedFeatures {
		said[features.FeatureName(f.Name)] = true
		if features.GetFeature(features.FeatureName(f.Name)).Name == "" {
			t.Errorf("the GatewayClass names %s, which is no feature", f.Name)
		}
		if why := unclaimed()[features.FeatureName(f.Name)]; why != "" {
			t.Errorf("the GatewayClass names %s, which is not claimed: %s", f.Name, why)
		}
	}
	for _, name := range supported() {
		if !said[name] {
			t.Errorf("the GatewayClass does not name %s, which is claimed", name)
		}
	}
}
