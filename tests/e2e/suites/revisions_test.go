//go:build e2e

package suites

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("Two revisions of the control plane", Ordered, Serial, SpecPriority(-7), func() {
	const ns = "e2e-revisions"
	istioctl := func(ctx context.Context, args ...string) string {
		GinkgoHelper()
		var out string
		within(ctx, func(ctx context.Context) (err error) {
			out, err = cluster.RunIstioctl(ctx, args...)
			return err
		})
		return out
	}
	revisionOf := func(ctx context.Context, gateway string) (string, error) {
		d, err := cluster.Client.AppsV1().Deployments(ns).Get(ctx, gateway, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return d.Spec.Template.Annotations["istio.io/rev"], nil
	}
	BeforeAll(func(ctx SpecContext) {
		// The node's agents and proxies are one for both.
		istioctl(ctx, "install", "-y", "--set", "profile=minimal", "--set", "revision=canary", "--set", "hub="+cluster.Hub, "--set", "tag="+cluster.Tag)
		DeferCleanup(func(ctx SpecContext) {
			istioctl(ctx, "uninstall", "-y", "--revision", "canary")
			Eventually(ctx, func() ([]string, error) {
				all, err := leftovers(ctx)
				return only(all, "canary"), err
			}).WithTimeout(patience).Should(BeEmpty())
		})
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Deployment(lab.SystemNamespace, "istiod-canary"), lab.Istiod())
		})
		namespace(ctx, ns, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	It("each deploy the gateways that name them, directly or by a tag", func(ctx SpecContext) {
		waypoint(ctx, ns, "first", "")
		Expect(revisionOf(ctx, "first")).To(Equal("default"))
		waypoint(ctx, ns, "second", "istio.io/rev: canary")
		Expect(revisionOf(ctx, "second")).To(Equal("canary"))
		istioctl(ctx, "tag", "set", "next", "--revision", "canary")
		DeferCleanup(func(ctx SpecContext) { istioctl(ctx, "tag", "remove", "next", "-y") })
		waypoint(ctx, ns, "third", "istio.io/rev: next")
		Eventually(ctx, func() (string, error) { return revisionOf(ctx, "third") }).Should(Or(Equal("canary"), Equal("next")))
	})

	It("serve waypoints that go on when the other one is gone", func(ctx SpecContext) {
		waypoint(ctx, ns, "waypoint", "istio.io/rev: canary")
		through(ctx, ns, "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Scale(ctx, lab.Istiod(), 0) })
		DeferCleanup(func(ctx SpecContext) {
			within(ctx, func(ctx context.Context) error { return cluster.Scale(ctx, lab.Istiod(), 1) })
		})
		apply(ctx, ns, route("echo", "marked", `
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: canary}]}}]
    backendRefs: [{name: echo, port: 80}]`))
		Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://echo/").Text }).WithTimeout(patience).Should(ContainSubstring("x-by: canary"))
	})
})
