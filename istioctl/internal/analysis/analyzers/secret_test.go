package analyzers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

// certificate returns one that is valid until then, and its key.
func certificate(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
}

func secret(namespace, name string, data map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\nstringData:\n", name, namespace)
	for entry, text := range data {
		fmt.Fprintf(&b, "  %s: |\n    %s\n", entry, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    "))
	}
	return b.String()
}

// TestIST0161: credentials that a gateway cannot use, and those that are not there, of classic gateways and of those of the Gateway API.
func TestIST0161(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, time.Now().Add(time.Hour))
	old, oldKey := certificate(t, time.Now().Add(-time.Minute))
	const classic = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata:\n  name: shop\nspec:\n  selector:\n    istio: ingressgateway\n  servers:\n" +
		"  - port:\n      number: 443\n      name: https\n      protocol: HTTPS\n    hosts:\n    - '*'\n    tls:\n      mode: %s\n      credentialName: c\n"
	const listener = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: shop\n  namespace: istio-system\nspec:\n  gatewayClassName: istio\n  listeners:\n" +
		"  - name: https\n    port: 443\n    protocol: HTTPS\n    tls:\n      certificateRefs:\n      - name: c\n"
	good := map[string]string{"tls.crt": cert, "tls.key": key}
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	other, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	// listed is a Secret with authorities, and a list of revoked certificates that counts for some time.
	listed := func(by *testkit.CA, counts time.Duration) map[string]string {
		t.Helper()
		list, err := by.Revoke(time.Now().Add(counts))
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"tls.crt": cert, "tls.key": key, "ca.crt": string(ca.RootPEM()), "ca.crl": string(list)}
	}
	for _, c := range []struct {
		name, gateway, secret, want string
	}{
		{"good", fmt.Sprintf(classic, "SIMPLE"), secret("istio-system", "c", good), ""},
		{"generic", fmt.Sprintf(classic, "SIMPLE"), secret("istio-system", "c", map[string]string{"cert": cert, "key": key}), ""},
		{"missing", fmt.Sprintf(classic, "SIMPLE"), "", "IST0101"},
		{"elsewhere", fmt.Sprintf(classic, "SIMPLE"), secret("default", "c", good), "IST0101"},
		{"expired", fmt.Sprintf(classic, "SIMPLE"), secret("istio-system", "c", map[string]string{"tls.crt": old, "tls.key": oldKey}), "IST0161"},
		{"another key", fmt.Sprintf(classic, "SIMPLE"), secret("istio-system", "c", map[string]string{"tls.crt": cert, "tls.key": oldKey}), "IST0161"},
		{"no key", fmt.Sprintf(classic, "SIMPLE"), secret("istio-system", "c", map[string]string{"tls.crt": cert}), "IST0161"},
		{"mutual without authority", fmt.Sprintf(classic, "MUTUAL"), secret("istio-system", "c", good), "IST0161"},
		{"mutual", fmt.Sprintf(classic, "MUTUAL"), secret("istio-system", "c", good) + "---\n" + secret("istio-system", "c-cacert", map[string]string{"cacert": cert}), ""},
		{"mutual, with a list", fmt.Sprintf(classic, "MUTUAL"), secret("istio-system", "c", listed(ca, time.Hour)), ""},
		{"optional, with a list", fmt.Sprintf(classic, "OPTIONAL_MUTUAL"), secret("istio-system", "c", listed(ca, time.Hour)), ""},
		{"a list that has expired", fmt.Sprintf(classic, "MUTUAL"), secret("istio-system", "c", listed(ca, -time.Minute)), "IST0161"},
		{"a list of another authority", fmt.Sprintf(classic, "OPTIONAL_MUTUAL"), secret("istio-system", "c", listed(other, time.Hour)), "IST0161"},
		{"something else than a list", fmt.Sprintf(classic, "MUTUAL"), secret("istio-system", "c", map[string]string{"tls.crt": cert, "tls.key": key, "ca.crt": string(ca.RootPEM()), "ca.crl": cert}), "IST0161"},
		{"listener", listener, secret("istio-system", "c", good), ""},
		{"listener, missing", listener, "", "IST0101"},
		{"listener, expired", listener, secret("istio-system", "c", map[string]string{"tls.crt": old, "tls.key": oldKey}), "IST0161"},
	} {
		got := lines(analyze(t, input(t, false, collect.File{Name: "f.yaml", Data: []byte(c.gateway + "---\n" + c.secret)})))
		if c.want == "" && got != "" || c.want != "" && (!strings.Contains(got, "Error ["+c.want+"] (Gateway ") || strings.Count(got, "\n") != 1) {
			t.Errorf("%s: want %q, found %s", c.name, c.want, got)
		}
	}
}
