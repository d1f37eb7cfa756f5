//go:build e2e

package suites

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

// These run last: they take the mesh away.
var _ = Describe("The installation", Ordered, Serial, SpecPriority(-10), func() {
	const ns = "e2e-lifecycle"
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 2), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	It("is upgraded in place without a lost request", func(ctx SpecContext) {
		before := podNames(ctx)
		stop := load(ctx, ns, "client", "http://echo/")
		upgrade(ctx, "values.pilot.podAnnotations.upgraded=yes", "values.cni.podAnnotations.upgraded=yes", "values.ztunnel.podAnnotations.upgraded=yes")
		stop()
		for _, p := range podNames(ctx) {
			Expect(before).NotTo(ContainElement(p), "it was not replaced")
		}
		enrolled(ctx, ns, "app=echo")
	})

	It("says its versions", func(ctx SpecContext) {
		out, err := cluster.RunIstioctl(ctx, "version")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(And(ContainSubstring("client version: "), ContainSubstring("control plane version: "), ContainSubstring("data plane version: ")))
	})

	It("leaves nothing behind when it is removed, and pods go on without it", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error {
			_, err := cluster.RunIstioctl(ctx, "uninstall", "--purge", "-y")
			return err
		})
		Eventually(ctx, func() ([]string, error) { return leftovers(ctx) }).WithTimeout(patience).Should(BeEmpty())
		stop()
		stays(ctx, ns, "client", "200", "http://echo/")
		workers, err := cluster.Workers(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, w := range workers {
			Expect(cluster.Docker(ctx, "exec", w, "sh", "-c", "! grep -rl istio-cni /etc/cni/net.d && ! test -e /opt/cni/bin/istio-cni")).To(Succeed(), "files on node "+w)
		}
	})

	It("comes back", func(ctx SpecContext) {
		installMesh(ctx)
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
		stays(ctx, ns, "client", "200", "http://echo/")
	})
})

func podNames(ctx context.Context) (names []string) {
	GinkgoHelper()
	for _, selector := range []string{"app=istiod", "app=ztunnel", "k8s-app=istio-cni-node"} {
		pods, err := cluster.Pods(ctx, lab.SystemNamespace, selector)
		Expect(err).NotTo(HaveOccurred())
		for i := range pods {
			names = append(names, pods[i].Name)
		}
	}
	return names
}

// leftovers are objects of an installation that a removal forgot. Definitions of kinds stay, as users' objects would go with them.
func leftovers(ctx context.Context) (out []string, err error) {
	for _, r := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "serviceaccounts"},
		{Version: "v1", Resource: "configmaps"},
		{Version: "v1", Resource: "secrets"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "daemonsets"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
		{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
		{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
		{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"},
	} {
		list, err := cluster.Dynamic.Resource(r).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, o := range list.Items {
			if o.GetNamespace() == lab.SystemNamespace && !kubernetes(o.GetName()) || strings.Contains(o.GetName(), "istio") {
				out = append(out, fmt.Sprintf("%s %s/%s", r.Resource, o.GetNamespace(), o.GetName()))
			}
		}
	}
	return out, nil
}

// kubernetes tells the objects that Kubernetes itself makes in every namespace.
func kubernetes(name string) bool { return name == "default" || name == "kube-root-ca.crt" }
