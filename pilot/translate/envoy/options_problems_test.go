package envoy

import (
	"strings"
	"testing"

	meshapi "istio.io/api/mesh/v1alpha1"
)

func TestOptionsThatAreNotUnderstoodAreTold(t *testing.T) {
	for _, test := range []struct{ key, value, want string }{
		{OptionEndpointIdentity, "trust-domain", ""},
		{OptionEndpointIdentity, "off", "trust-domain"},
		{OptionHTTP2Paths, "true", `"any"`},
		{OptionHeadersTimeout, "0s", ""},
		{OptionHeadersTimeout, "10", "duration"},
		{"ISTHMUS_ENDPOINT_IDENTITIES", "trust-domain", "no such option"},
		{"BOOTSTRAP_XDS_AGENT", "true", ""},
	} {
		got := strings.Join(OptionProblems(&meshapi.MeshConfig{DefaultConfig: &meshapi.ProxyConfig{ProxyMetadata: map[string]string{test.key: test.value}}}), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s=%s: %q, want %q", test.key, test.value, got, test.want)
		}
	}
}
