package ca_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

const system = "istio-system"

func openSecrets(t *testing.T, api kubernetes.Interface, edit func(*ca.Options)) *ca.Authority {
	t.Helper()
	options := ca.Options{TrustDomain: "cluster.local"}
	edit(&options)
	a, err := ca.OpenSecrets(t.Context(), api, system, options)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func asIs(*ca.Options) {}

// plugIn makes the Secret of an authority.
func plugIn(t *testing.T) *corev1.Secret {
	t.Helper()
	dir := t.TempDir()
	intermediate(t, dir)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: ca.PlugInSecret, Namespace: system}, Data: map[string][]byte{}}
	for _, name := range []string{"ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		s.Data[name] = data
	}
	return s
}

// asTLS is the same in the other shape.
func asTLS(s *corev1.Secret) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: s.ObjectMeta, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": s.Data["ca-cert.pem"], "tls.key": s.Data["ca-key.pem"], "ca.crt": s.Data["root-cert.pem"]},
	}
}

func TestTheRootIsKeptInASecret(t *testing.T) {
	api := fake.NewClientset()
	first := openSecrets(t, api, asIs)
	if second := openSecrets(t, api, asIs); string(first.RootPEM()) != string(second.RootPEM()) {
		t.Error("another root after a restart")
	}
	s, err := api.CoreV1().Secrets(system).Get(t.Context(), ca.SelfSignedSecret, metav1.GetOptions{})
	if err != nil || len(s.Data["ca-cert.pem"]) == 0 || len(s.Data["ca-key.pem"]) == 0 {
		t.Errorf("stored %v, %v", s, err)
	}
}

func TestPeersThatKnowTheOldRootTrustTheNewOne(t *testing.T) {
	api := fake.NewClientset()
	old := openSecrets(t, api, asIs)
	later := time.Now().Add(9 * 365 * 24 * time.Hour)
	next := openSecrets(t, api, func(o *ca.Options) { o.Now = func() time.Time { return later } })
	if n := strings.Count(string(next.RootPEM()), "BEGIN"); n != 2 {
		t.Fatalf("%d roots after the rotation", n)
	}
	csr, _, err := certs.NewCSR(web)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ signs, trusts *ca.Authority }{"new by old": {next, old}, "old by new": {old, next}} {
		chain, err := tt.signs.Sign(csr, web, 0)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := certs.ParsePEM([]byte(chain[0]))
		if err != nil {
			t.Fatal(err)
		}
		leaf := parsed[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: tt.trusts.Roots(), CurrentTime: leaf.NotBefore.Add(time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPluggedInSecret(t *testing.T) {
	for name, shape := range map[string]func(*corev1.Secret) *corev1.Secret{"files": func(s *corev1.Secret) *corev1.Secret { return s }, "tls": asTLS} {
		t.Run(name, func(t *testing.T) {
			secret := shape(plugIn(t))
			api := fake.NewClientset(secret)
			a := openSecrets(t, api, asIs)
			csr, _, err := certs.NewCSR(web)
			if err != nil {
				t.Fatal(err)
			}
			if chain, err := a.Sign(csr, web, time.Hour); err != nil || len(chain) != 3 {
				t.Errorf("chain of %d, %v", len(chain), err)
			}
			if _, err := api.CoreV1().Secrets(system).Get(t.Context(), ca.SelfSignedSecret, metav1.GetOptions{}); err == nil {
				t.Error("a root of its own was made beside it")
			}
		})
	}
}

func TestAPlugInComesLaterAndIsReplaced(t *testing.T) {
	api := fake.NewClientset()
	a := openSecrets(t, api, asIs)
	own := string(a.RootPEM())
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	wake := make(chan struct{})
	following.Go(func() { a.Follow(ctx, time.Hour, wake) })
	defer func() { cancel(); following.Wait() }()
	look := func() {
		wake <- struct{}{}
		wake <- struct{}{} // the first one has been dealt with
	}
	secrets := api.CoreV1().Secrets(system)
	one, two := plugIn(t), asTLS(plugIn(t))
	if _, err := secrets.Create(ctx, one, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	look()
	first := string(a.RootPEM())
	if first == own {
		t.Error("what was plugged in is not taken")
	}
	broken := one.DeepCopy()
	broken.Data["ca-key.pem"] = []byte("broken")
	for what, change := range []func() error{
		func() error { _, err := secrets.Update(ctx, broken, metav1.UpdateOptions{}); return err },
		func() error { return secrets.Delete(ctx, ca.PlugInSecret, metav1.DeleteOptions{}) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		look()
		if string(a.RootPEM()) != first {
			t.Errorf("after change %d: the last good one does not go on", what)
		}
	}
	if _, err := secrets.Create(ctx, two, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	look()
	if now := string(a.RootPEM()); now == first || now == own {
		t.Error("the replacement is not taken")
	}
}

func TestThePluggedInListOfRevokedCertificates(t *testing.T) {
	secret := plugIn(t)
	issuer, err := certs.ParsePEM(secret.Data["ca-cert.pem"])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(secret.Data["ca-key.pem"])
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	issuer[0].KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, issuer[0], key)
	if err != nil {
		t.Fatal(err)
	}
	secret.Data["ca-crl.pem"] = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	if got := openSecrets(t, fake.NewClientset(secret), asIs).CRL(); string(got) != string(secret.Data["ca-crl.pem"]) {
		t.Errorf("list %q", got)
	}
	secret.Data["ca-crl.pem"] = []byte("broken")
	if _, err := ca.OpenSecrets(t.Context(), fake.NewClientset(secret), system, ca.Options{}); err == nil || !strings.Contains(err.Error(), "ca-crl.pem") {
		t.Errorf("a broken list: %v", err)
	}
}
