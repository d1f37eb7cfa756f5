package credential

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

	networkingapi "istio.io/api/networking/v1alpha3"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]string{
		"kubernetes://one":                  "Secret edge/one",
		"kubernetes://one-cacert":           "Secret edge/one authority",
		"kubernetes://edge/one":             "Secret edge/one",
		"kubernetes://other/one":            "not in the namespace of the proxy's pods",
		"kubernetes://edge/one/two":         "no name of a credential",
		"kubernetes://":                     "no name of a credential",
		"kubernetes-gateway://other/one":    "Secret other/one verified",
		"kubernetes-gateway://one":          "names no namespace",
		"kubernetes-gateway:///one":         "no name of a credential",
		"kubernetes-gateway://a/b/c":        "no name of a credential",
		"configmap://other/roots-cacert":    "ConfigMap other/roots authority verified",
		"builtin://":                        "no name of a credential",
		"file-cert:/etc/shadow~/etc/passwd": "no name of a credential",
		"one":                               "no name of a credential",
		"":                                  "no name of a credential",
	} {
		ref, err := Parse(name, "edge")
		got := ref.Source.String()
		if ref.Authority {
			got += " authority"
		}
		if ref.Verified {
			got += " verified"
		}
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != want || err != nil && !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	const simple, mutual, optional = networkingapi.ServerTLSSettings_SIMPLE, networkingapi.ServerTLSSettings_MUTUAL, networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL
	for want, s := range map[string]*networkingapi.ServerTLSSettings{
		"[] ":                                                 {Mode: networkingapi.ServerTLSSettings_PASSTHROUGH, CredentialName: "a"},
		"[kubernetes://own] ":                                 {Mode: simple, CredentialName: "own", CaCertCredentialName: "ca"},
		"[kubernetes://a kubernetes://b] ":                    {Mode: simple, CredentialNames: []string{"a", "b"}, CredentialName: "a"},
		"[kubernetes://c] kubernetes://c-cacert":              {Mode: mutual, CredentialName: "c"},
		"[kubernetes://d] kubernetes://ca-cacert":             {Mode: optional, CredentialName: "d", CaCertCredentialName: "ca"},
		"[] kubernetes://only-cacert":                         {Mode: mutual, CaCertCredentialName: "only"},
		"[kubernetes-gateway://n/e] configmap://n/ref-cacert": {Mode: mutual, CredentialNames: []string{GatewayName(Secret, "n", "e")}, CaCertCredentialName: GatewayName(ConfigMap, "n", "ref")},
	} {
		certificates, authority := Names(s)
		if got := fmt.Sprint(certificates, " ", authority); got != want {
			t.Errorf("%v: %s, want %s", s, got, want)
		}
	}
}

func TestMayRead(t *testing.T) {
	rule := func(verb, resource string, names ...string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{resource}, Verbs: []string{verb}, ResourceNames: names}}
	}
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: "gw"}
	for name, tt := range map[string]struct {
		rules     []rbacv1.PolicyRule
		subject   rbacv1.Subject
		kind      string
		namespace string
		want      bool
	}{
		"get":                        {rules: rule("get", "secrets"), subject: account, want: true},
		"list":                       {rules: rule("list", "secrets"), subject: account, want: true},
		"all":                        {rules: rule("*", "*"), subject: account, want: true},
		"by name":                    {rules: rule("get", "secrets", "one"), subject: account, want: true},
		"all accounts":               {rules: rule("get", "secrets"), subject: rbacv1.Subject{Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:edge"}, want: true},
		"as a user":                  {rules: rule("get", "secrets"), subject: rbacv1.Subject{Kind: rbacv1.UserKind, Name: "system:serviceaccount:edge:gw"}, want: true},
		"another name":               {rules: rule("get", "secrets", "two"), subject: account},
		"list of one name":           {rules: rule("list", "secrets", "one"), subject: account},
		"watch alone":                {rules: rule("watch", "secrets"), subject: account},
		"another resource":           {rules: rule("get", "configmaps"), subject: account},
		"another account":            {rules: rule("get", "secrets"), subject: rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: "other"}},
		"of another namespace":       {rules: rule("get", "secrets"), subject: rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: "gw", Namespace: "other"}},
		"accounts elsewhere":         {rules: rule("get", "secrets"), subject: rbacv1.Subject{Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:other"}},
		"a ClusterRole of that name": {rules: rule("get", "secrets"), subject: account, kind: "ClusterRole"},
		"bound elsewhere":            {rules: rule("get", "secrets"), subject: account, namespace: "other"},
	} {
		in := metav1.ObjectMeta{Name: "reader", Namespace: "edge"}
		bound := metav1.ObjectMeta{Name: "b", Namespace: "edge"}
		if tt.namespace != "" {
			bound.Namespace = tt.namespace
		}
		if tt.kind == "" {
			tt.kind = "Role"
		}
		roles := []*rbacv1.Role{{ObjectMeta: in, Rules: tt.rules}}
		bindings := []*rbacv1.RoleBinding{{ObjectMeta: bound, RoleRef: rbacv1.RoleRef{Kind: tt.kind, Name: "reader"}, Subjects: []rbacv1.Subject{tt.subject}}}
		if got := MayRead(roles, bindings, "edge", "gw", "one"); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestErrorsHaveNothingOfTheContent: what is wrong with a Secret is told in conditions and logs.
func TestErrorsHaveNothingOfTheContent(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	const hidden = "hunter2"
	for _, data := range []map[string][]byte{
		{}, {"tls.crt": certificate}, {"tls.key": []byte(hidden)}, {"tls.crt": certificate, "tls.key": []byte(hidden)}, {"cert": []byte(hidden), "key": []byte(hidden)},
	} {
		if secret, err := Certificate("n", data); err == nil || secret != nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%v: %v", data, err)
		}
	}
	for _, data := range []map[string][]byte{
		{},
		{"ca.crt": []byte(hidden)},
		{"ca.crt": certificate, "ca.crl": []byte(hidden)},
		{"cacert": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(hidden)})},
	} {
		if secret, err := Authority("n", data); err == nil || secret != nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%v: %v", data, err)
		}
	}
	if secret, err := Authority("n", map[string][]byte{"ca.crt": certificate}); err != nil || secret.GetValidationContext() == nil {
		t.Error(err)
	}
}

// Authorities of several objects have a name, from which the objects are read again.
func TestAuthorities(t *testing.T) {
	ca, more := Source{ConfigMap, "shop", "ca"}, Source{Secret, "shop", "more-cacert"}
	for want, sources := range map[string][]Source{
		"configmap://shop/ca-cacert":                                {ca},
		"kubernetes-gateway://shop/more-cacert-cacert":              {more},
		"authorities://shop/ConfigMap:ca,Secret:more-cacert-cacert": {ca, more},
		"authorities://shop/Secret:more-cacert,ConfigMap:ca-cacert": {more, ca},
	} {
		name := AuthoritiesName(sources...)
		ref, err := Parse(name, "edge")
		if name != want || err != nil || !ref.Authority || !ref.Verified || fmt.Sprint(ref.Sources()) != fmt.Sprint(sources) || ref.Source != sources[0] {
			t.Errorf("%v: %s, %v %v, %v", sources, name, ref, ref.Sources(), err)
		}
	}
	for _, name := range []string{
		"authorities://shop/ConfigMap:ca", "authorities://shop/-cacert", "authorities://shop/ConfigMap:-cacert", "authorities:///ConfigMap:ca-cacert",
		"authorities://shop/Pod:ca-cacert", "authorities://shop/ConfigMap:a,,Secret:b-cacert", "authorities://shop/ConfigMap:a/b-cacert",
	} {
		if ref, err := Parse(name, "shop"); err == nil {
			t.Errorf("%s: %v", name, ref)
		}
	}
}
