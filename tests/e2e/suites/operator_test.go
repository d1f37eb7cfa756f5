//go:build e2e

package suites

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("The operator in the cluster", Ordered, Serial, SpecPriority(-11), func() {
	const ns = "e2e-operator"
	installation := func(annotation string) string {
		return fmt.Sprintf(`
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: mesh, namespace: %s}
spec:
  profile: ambient
  hub: %s
  tag: %s
  values: {pilot: {podAnnotations: {asked: %q}}}
`, lab.SystemNamespace, cluster.Hub, cluster.Tag, annotation)
	}
	healthy := func(ctx context.Context) {
		GinkgoHelper()
		Eventually(ctx, func() (string, error) { return installationState(ctx, "mesh") }).WithTimeout(patience).Should(Equal("HEALTHY"))
	}

	BeforeAll(func(ctx SpecContext) {
		removeMesh(ctx)
		manifest, err := os.ReadFile(filepath.Join(cluster.Operator, "deploy/operator.yaml"))
		Expect(err).NotTo(HaveOccurred())
		// The mesh's namespace is in it too, and stays.
		parts := strings.Split(cluster.Images(string(manifest)), "\n---\n")
		within(ctx, func(ctx context.Context) error { return cluster.Apply(ctx, "", strings.Join(parts, "\n---\n")) })
		DeferCleanup(func(ctx SpecContext) {
			parts = slices.DeleteFunc(parts, func(p string) bool {
				return strings.Contains(p, "kind: Namespace") && strings.Contains(p, "name: "+lab.SystemNamespace)
			})
			// First the object, which only the operator can let go of.
			within(ctx, func(ctx context.Context) error { return cluster.Delete(ctx, "", installation("")) })
			Eventually(ctx, func() error { _, err := installationState(ctx, "mesh"); return err }).WithTimeout(patience).ShouldNot(Succeed())
			within(ctx, func(ctx context.Context) error { return cluster.Delete(ctx, "", strings.Join(parts, "\n---\n")) })
			removeMesh(ctx)
			installMesh(ctx)
		})
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Deployment("istio-operator", "istio-operator"))
		})
	})

	It("installs what an IstioOperator asks for", func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error { return cluster.Apply(ctx, "", installation("first")) })
		healthy(ctx)
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel())
		})
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		answers(ctx, ns, "client", "200", "http://echo/")
	})

	It("follows it", func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error { return cluster.Apply(ctx, "", installation("second")) })
		Eventually(ctx, func() (string, error) {
			d, err := cluster.Client.AppsV1().Deployments(lab.SystemNamespace).Get(ctx, "istiod", metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			return d.Spec.Template.Annotations["asked"], nil
		}).WithTimeout(patience).Should(Equal("second"))
		healthy(ctx)
	})

	It("says what it cannot do", func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error {
			return cluster.Apply(ctx, "", `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, metadata: {name: mesh, namespace: `+lab.SystemNamespace+`}, spec: {profile: none-such}}`)
		})
		Eventually(ctx, func() (string, error) { return installationState(ctx, "mesh") }).WithTimeout(patience).Should(Equal("ERROR"))
		within(ctx, func(ctx context.Context) error { return cluster.Apply(ctx, "", installation("second")) })
		healthy(ctx)
	})

	It("removes everything with it", func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error { return cluster.Delete(ctx, "", installation("second")) })
		// Its own objects go with its manifest; what the control plane made while it ran stays, as the key of the authority may be needed.
		Eventually(ctx, func() ([]string, error) {
			left, err := leftovers(ctx)
			return except(left, "istio-operator", "configmaps ", "secrets ", "leases ", "gatewayclasses "), err
		}).WithTimeout(patience).Should(BeEmpty())
	})
})

// installationState is what the operator says of an IstioOperator in its present form.
func installationState(ctx context.Context, name string) (string, error) {
	resource := schema.GroupVersionResource{Group: "install.istio.io", Version: "v1alpha1", Resource: "istiooperators"}
	u, err := cluster.Dynamic.Resource(resource).Namespace(lab.SystemNamespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["observedGeneration"] == u.GetGeneration() {
			state, _, _ := unstructured.NestedString(u.Object, "status", "status")
			return state, nil
		}
	}
	return "not looked at", nil
}
