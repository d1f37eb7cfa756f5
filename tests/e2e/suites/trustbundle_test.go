//go:build e2e

package suites

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("Root certificates in a ClusterTrustBundle", Ordered, Serial, SpecPriority(-6), func() {
	const ns, bundle = "e2e-bundle", "istio.io:istiod-ca:root-cert"
	BeforeAll(func(ctx SpecContext) {
		if _, err := cluster.Client.Discovery().ServerResourcesForGroupVersion("certificates.k8s.io/v1beta1"); err != nil {
			Skip("the API server does not serve ClusterTrustBundles: " + err.Error())
		}
		DeferCleanup(func(ctx SpecContext) { upgrade(ctx) }) // the installation as it was
		upgrade(ctx, "values.pilot.env.ENABLE_CLUSTER_TRUST_BUNDLE_API=true")
	})

	It("serve a mesh whose namespaces have no ConfigMap of them", func(ctx SpecContext) {
		namespace(ctx, ns, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
		waypoint(ctx, ns, "waypoint", "")
		through(ctx, ns, "http://echo/")
		for _, pods := range [][2]string{{ns, "gateway.networking.k8s.io/gateway-name=waypoint"}, {lab.SystemNamespace, "app=ztunnel"}} {
			pod, err := cluster.Pod(ctx, pods[0], pods[1])
			Expect(err).NotTo(HaveOccurred())
			Expect(bundleOf(pod)).To(Equal(bundle), pod.Name)
		}
		_, err := cluster.Client.CoreV1().ConfigMaps(ns).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "the ConfigMap is there, or: %v", err)
	})

	It("come back when they are changed", func(ctx SpecContext) {
		bundles := cluster.Client.CertificatesV1beta1().ClusterTrustBundles()
		before, err := bundles.Get(ctx, bundle, metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(bundles.Delete(ctx, bundle, metav1.DeleteOptions{})).To(Succeed())
		Eventually(ctx, func() (string, error) {
			now, err := bundles.Get(ctx, bundle, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			return now.Spec.TrustBundle, nil
		}).Should(Equal(before.Spec.TrustBundle))
	})
})

// bundleOf is the ClusterTrustBundle that a pod mounts.
func bundleOf(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ClusterTrustBundle != nil && s.ClusterTrustBundle.Name != nil {
				return *s.ClusterTrustBundle.Name
			}
		}
	}
	return ""
}
