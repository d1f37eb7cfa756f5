package gateway

import (
	"strings"
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestClassicServersNameOnlySecrets: the names of credentials whose references only the Gateway API has verified are not for everybody to
// write, and what cannot be served is not served otherwise.
func TestClassicServersNameOnlySecrets(t *testing.T) {
	const simple, mutual = networkingapi.ServerTLSSettings_SIMPLE, networkingapi.ServerTLSSettings_MUTUAL
	for name, tt := range map[string]struct {
		tls  *networkingapi.ServerTLSSettings
		want string // empty: served
	}{
		"a Secret":                      {&networkingapi.ServerTLSSettings{Mode: simple, CredentialName: "one"}, ""},
		"a Secret, by scheme":           {&networkingapi.ServerTLSSettings{Mode: simple, CredentialName: "kubernetes://one"}, ""},
		"as the Gateway API":            {&networkingapi.ServerTLSSettings{Mode: simple, CredentialName: "kubernetes-gateway://other/one"}, "only the name of a Secret"},
		"one of several":                {&networkingapi.ServerTLSSettings{Mode: simple, CredentialNames: []string{"one", "kubernetes-gateway://other/one"}}, "only the name of a Secret"},
		"a ConfigMap":                   {&networkingapi.ServerTLSSettings{Mode: mutual, CredentialName: "one", CaCertCredentialName: "configmap://other/roots"}, "only the name of a Secret"},
		"no certificate":                {&networkingapi.ServerTLSSettings{Mode: simple}, "a certificate is needed"},
		"nobody who signs for clients":  {&networkingapi.ServerTLSSettings{Mode: mutual, ServerCertificate: "/c", PrivateKey: "/k"}, "who signs the certificates of clients"},
		"a certificate of the mesh":     {&networkingapi.ServerTLSSettings{Mode: networkingapi.ServerTLSSettings_ISTIO_MUTUAL}, ""},
		"passed through by the unnamed": {&networkingapi.ServerTLSSettings{Mode: networkingapi.ServerTLSSettings_AUTO_PASSTHROUGH}, "AUTO_PASSTHROUGH is not supported"},
	} {
		gw := &networkingv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "edge"}}
		gw.Spec.Servers = []*networkingapi.Server{{Port: &networkingapi.Port{Number: 443, Name: "https", Protocol: "HTTPS"}, Hosts: []string{"one.example.com"}, Tls: tt.tls}}
		tr := &translation{view: newWorld()}
		served := len(tr.listeners(GatewayInput{Classic: []*networkingv1.Gateway{gw}})) == 1
		var said []string
		for _, p := range tr.problems {
			said = append(said, p.Message)
		}
		if text := strings.Join(said, "; "); served != (tt.want == "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: served %v, %q; want %q", name, served, text, tt.want)
		}
	}
}
