package rootcert

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// The ClusterTrustBundle with the roots, by the names that Istio gives it and its signer.
const (
	BundleName   = "istio.io:istiod-ca:root-cert"
	BundleSigner = "istio.io/istiod-ca"
)

// bundleRetry is how long to wait after a failure, and between looks for an API that is not served.
const bundleRetry = 5 * time.Second

// BundleConfig of a Bundle.
type BundleConfig struct {
	API kubernetes.Interface
	// Roots that it has to have, as PEM; nothing is written while they are empty.
	Roots func() []byte
	Log   *slog.Logger
	// Retry is five seconds when empty.
	Retry time.Duration
}

// Bundle puts the roots into one ClusterTrustBundle, which pods of all namespaces can mount, and keeps them there.
type Bundle struct {
	config BundleConfig
	wake   chan struct{} // holds a token: look at it
}

// NewBundle returns one.
func NewBundle(config BundleConfig) *Bundle {
	if config.Retry == 0 {
		config.Retry = bundleRetry
	}
	return &Bundle{config: config, wake: make(chan struct{}, 1)}
}

// Refresh says that the roots have changed. It may be called at any time.
func (b *Bundle) Refresh() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (b *Bundle) Run(ctx context.Context) error {
	if !b.served(ctx) {
		return nil // ctx has ended
	}
	factory := informers.NewSharedInformerFactoryWithOptions(b.config.API, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, BundleName).String()
	}))
	informer := factory.Certificates().V1beta1().ClusterTrustBundles().Informer()
	refresh := func(any) { b.Refresh() }
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: refresh, UpdateFunc: func(_, o any) { refresh(o) }, DeleteFunc: refresh,
	})
	if err != nil {
		return fmt.Errorf("watch ClusterTrustBundle %s: %w", BundleName, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	factory.StartWithContext(ctx)
	defer func() { cancel(); factory.Shutdown() }()
	for {
		var again <-chan time.Time
		if err := b.reconcile(ctx); err != nil && ctx.Err() == nil {
			if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
				b.config.Log.Warn("ClusterTrustBundle not written; trying again", "name", BundleName, "error", err)
			}
			again = time.After(b.config.Retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		case <-again:
		}
	}
}

// served waits until the API server serves the kind, and says once that it does not.
func (b *Bundle) served(ctx context.Context) bool {
	said := false
	for {
		_, err := b.config.API.Discovery().ServerResourcesForGroupVersion(certificatesv1beta1.SchemeGroupVersion.String())
		if err == nil {
			return true
		}
		if !said {
			said = true
			b.config.Log.Error("the API server does not serve ClusterTrustBundles: what mounts the root certificates from one does not start. "+
				"Turn on its feature gate ClusterTrustBundle and its --runtime-config=certificates.k8s.io/v1beta1=true, and the kubelets' feature gate "+
				"ClusterTrustBundleProjection; or turn off ENABLE_CLUSTER_TRUST_BUNDLE_API", "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(b.config.Retry):
		}
	}
}

// reconcile makes the bundle what it has to be.
func (b *Bundle) reconcile(ctx context.Context) error {
	roots := string(b.config.Roots())
	if roots == "" {
		return nil
	}
	api := b.config.API.CertificatesV1beta1().ClusterTrustBundles()
	current, err := api.Get(ctx, BundleName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &certificatesv1beta1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: BundleName, Labels: map[string]string{configLabel: "true"}},
			Spec:       certificatesv1beta1.ClusterTrustBundleSpec{SignerName: BundleSigner, TrustBundle: roots},
		}, metav1.CreateOptions{})
		return forbidden(err)
	}
	if err != nil {
		return forbidden(err)
	}
	if current.Spec.TrustBundle == roots && current.Labels[configLabel] == "true" {
		return nil
	}
	if current.Labels == nil {
		current.Labels = map[string]string{}
	}
	current.Labels[configLabel], current.Spec.TrustBundle = "true", roots
	_, err = api.Update(ctx, current, metav1.UpdateOptions{})
	return forbidden(err)
}

func forbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w: the control plane's ClusterRole has to allow clustertrustbundles, and to attest for the signer %s", err, BundleSigner)
	}
	return err
}
