//go:build envtest

package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// roots are what CABundle returns.
type roots struct {
	mu  sync.Mutex
	pem []byte
}

func (r *roots) set(pem []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pem = pem
}

func (r *roots) get() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pem
}

func configuration(name, revision, url string) *admissionregistrationv1.ValidatingWebhookConfiguration {
	ignore, none, scope := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.AllScopes
	hook := admissionregistrationv1.ValidatingWebhook{
		Name: "validation.istio.io", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url},
		FailurePolicy: &ignore, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "istio.io/rev", Operator: metav1.LabelSelectorOpDoesNotExist}}},
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{"security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"}, APIVersions: []string{"*"}, Resources: []string{"*"}, Scope: &scope,
			},
		}},
	}
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "istiod", "istio.io/rev": revision}}, Webhooks: []admissionregistrationv1.ValidatingWebhook{hook},
	}
}

// warnings collects what the API server says beside its answers.
type warnings struct {
	mu   sync.Mutex
	said []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// The API server asks the webhook, once it has the roots, and refuses what the webhook refuses, and everything when it is gone.
func TestAdmission(t *testing.T) {
	said := &warnings{}
	config := kubetest.Start(t)
	config.WarningHandler = said
	bundle := &roots{}
	s, err := New(Config{REST: config, Namespace: "default", CABundle: bundle.get, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	endpoint := httptest.NewUnstartedServer(s.Handler())
	endpoint.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of every handshake that fails
	endpoint.StartTLS()
	defer endpoint.Close()
	hooks := s.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	for _, c := range []*admissionregistrationv1.ValidatingWebhookConfiguration{
		configuration("istiod-default-validator", "default", endpoint.URL+"/validate"), configuration("istio-validator-other-default", "other", endpoint.URL+"/validate"),
	} {
		if _, err := hooks.Create(t.Context(), c, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	policy := func(name string) (admissionregistrationv1.FailurePolicyType, string) {
		c, err := hooks.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return *c.Webhooks[0].FailurePolicy, string(c.Webhooks[0].ClientConfig.CABundle)
	}
	if p, _ := policy("istiod-default-validator"); p != admissionregistrationv1.Ignore {
		t.Errorf("%s before the roots are known", p)
	}
	real := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: endpoint.Certificate().Raw})
	bundle.set(real)
	s.RootsChanged()
	until(t, "the webhook is closed", func() bool {
		p, roots := policy("istiod-default-validator")
		return p == admissionregistrationv1.Fail && roots == string(real)
	})
	if p, roots := policy("istio-validator-other-default"); p != admissionregistrationv1.Ignore || roots != "" {
		t.Errorf("another revision's configuration: %s %q", p, roots)
	}

	// The API server follows configurations of webhooks in its own time.
	until(t, "the API server asks the webhook", func() bool {
		err := create(t, config, virtualService("{}"), metav1.DryRunAll)
		return err != nil && strings.Contains(err.Error(), `admission webhook "validation.istio.io" denied the request`)
	})
	// Every kind, by the API server: whatever its own schemas let through is refused by us.
	refused := 0
	for _, c := range badValues() {
		switch err := create(t, config, c.object); {
		case err == nil:
			t.Errorf("stored: %s", c.object)
		case strings.Contains(err.Error(), `admission webhook "validation.istio.io" denied the request`):
			refused++
			if !strings.Contains(err.Error(), c.field) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.object, err)
			}
		}
	}
	if refused < 60 {
		t.Errorf("%d of %d refused by the webhook", refused, len(badValues()))
	}
	for i, object := range goodObjects() {
		if err := create(t, config, strings.Replace(object, "name: obj", fmt.Sprintf("name: obj-%d", i), 1)); err != nil {
			t.Errorf("%s: %v", object, err)
		}
	}
	if err := create(t, config, strings.Replace(virtualService("{"+routed+"}, {"+routed+"}"), "name: obj", "name: warned", 1)); err != nil {
		t.Error(err)
	}
	said.mu.Lock()
	if text := strings.Join(said.said, "\n"); !strings.Contains(text, "spec.http[1]: is never reached") {
		t.Errorf("warnings: %s", text)
	}
	said.mu.Unlock()

	// Other roots: they are passed on, and as the certificate does not match nothing is stored.
	bundle.set(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: otherRoot(t)}))
	s.RootsChanged()
	until(t, "the new roots", func() bool { _, roots := policy("istiod-default-validator"); return roots == string(bundle.get()) })
	until(t, "nothing is stored unseen", func() bool {
		err := create(t, config, strings.Replace(goodObjects()[0], "name: obj", "name: unseen", 1), metav1.DryRunAll)
		return err != nil && strings.Contains(err.Error(), "failed calling webhook")
	})
}

// otherRoot is a certificate that nothing here was signed with.
func otherRoot(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, ok, nil)
}

func create(t *testing.T, config *rest.Config, text string, dryRun ...string) error {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{REST: config, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, metav1.CreateOptions{})
	gvk := u.GroupVersionKind()
	resource := strings.ToLower(gvk.Kind) + "s"
	switch {
	case strings.HasSuffix(gvk.Kind, "way"):
	case strings.HasSuffix(gvk.Kind, "y"):
		resource = strings.TrimSuffix(strings.ToLower(gvk.Kind), "y") + "ies"
	}
	_, err = s.dynamic.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: resource}).Namespace("ns").Create(t.Context(), u, metav1.CreateOptions{DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict})
	return err
}
