package selftest

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rootBundle is the ClusterTrustBundle that has the roots where ENABLE_CLUSTER_TRUST_BUNDLE_API is on. ConfigMaps of namespaces are
// then those of before.
const rootBundle = "istio.io:istiod-ca:root-cert"

// trustBundle looks at the bundle; it tells false where there is none, as where the kind is not served.
func trustBundle(ctx context.Context, s *Subject) ([]Result, bool) {
	client, ok := s.Mesh.Kubernetes()
	if !ok {
		return nil, false
	}
	bundle, err := client.CertificatesV1beta1().ClusterTrustBundles().Get(ctx, rootBundle, metav1.GetOptions{})
	if err != nil {
		return nil, false
	}
	root := []byte(bundle.Spec.TrustBundle)
	switch {
	case expires(root, s.Now):
		return one(bad("Renew the root certificate", "the root certificate in the ClusterTrustBundle %s has expired or is none", rootBundle)), true
	case expires(root, s.Now.Add(soon)):
		return one(warning("Plan to renew it", "the root certificate expires within %d days", int(soon.Hours()/24))), true
	}
	return one(good("it is in the ClusterTrustBundle %s", rootBundle)), true
}
