package rootcert

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

func TestTheBundleHasTheRoots(t *testing.T) {
	api := fake.NewClientset()
	api.Resources = append(api.Resources, &metav1.APIResourceList{GroupVersion: "certificates.k8s.io/v1beta1"})
	var served atomic.Bool
	api.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
		if !served.Load() {
			return true, nil, errors.New("there is no such version")
		}
		return false, nil, nil
	})
	var root atomic.Value
	root.Store("")
	b := NewBundle(BundleConfig{
		API: api, Log: slog.New(slog.DiscardHandler), Retry: 10 * time.Millisecond,
		Roots: func() []byte { return []byte(root.Load().(string)) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	bundles := api.CertificatesV1beta1().ClusterTrustBundles()
	stored := func() *certificatesv1beta1.ClusterTrustBundle {
		found, err := bundles.Get(t.Context(), BundleName, metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return found
	}
	has := func(want string) {
		t.Helper()
		wait.Until(t, time.Minute, "the bundle has "+want, func() bool {
			found := stored()
			return found != nil && found.Spec.TrustBundle == want && found.Spec.SignerName == BundleSigner && found.Labels["istio.io/config"] == "true"
		}, nil)
	}

	root.Store("one")
	b.Refresh()
	served.Store(true) // later than the start
	has("one")
	root.Store("two")
	b.Refresh()
	has("two")

	kubetest.AwaitWatches(t, api, "clustertrustbundles", 1)
	forged := stored()
	forged.Spec.TrustBundle, forged.Labels = "forged", map[string]string{"mine": "kept"}
	if _, err := bundles.Update(t.Context(), forged, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	has("two")
	if stored().Labels["mine"] != "kept" {
		t.Error("labels of others are gone")
	}
	if err := bundles.Delete(t.Context(), BundleName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	has("two")
}
