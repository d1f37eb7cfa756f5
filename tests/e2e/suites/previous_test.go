//go:build e2e

package suites

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("The version before", Ordered, Serial, SpecPriority(-12), func() {
	const ns, l7 = "e2e-previous", "e2e-previous-l7"
	// With the waypoint's access log a lost request explains itself; node proxies have theirs anyway.
	const logs = "meshConfig.accessLogFile=/dev/stdout"
	BeforeAll(func(ctx SpecContext) {
		if cluster.PreviousIstioctl == "" {
			Skip("there is no version before: the driver was called with -upgrade-from -")
		}
		removeMesh(ctx)
		DeferCleanup(installMesh)
		within(ctx, func(ctx context.Context) error {
			_, err := cluster.Run(ctx, nil, cluster.PreviousIstioctl, installation("install", cluster.PreviousTag, logs)...)
			return err
		})
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel())
		})
		namespace(ctx, ns, ambient())
		namespace(ctx, l7, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
		for _, name := range []string{ns, l7} {
			deploy(ctx, name, []string{"echo-v1", "client"}, echoManifest("v1", 2), clientManifest("client"))
			enrolled(ctx, name, "app=echo")
			enrolled(ctx, name, "app=client")
		}
		waypoint(ctx, l7, "waypoint", "")
		through(ctx, l7, "http://echo/")
	})

	It("is upgraded without a lost request, at L4 and through a waypoint", func(ctx SpecContext) {
		before := podNames(ctx)
		stopL4, stopL7 := load(ctx, ns, "client", "http://echo/"), load(ctx, l7, "client", "http://echo/")
		upgrade(ctx, logs)
		// The waypoint's pods are the control plane's to replace.
		Eventually(ctx, func() ([]string, error) { return images(ctx, l7, "gateway.networking.k8s.io/gateway-name=waypoint") }).
			WithTimeout(patience).Should(HaveEach(HaveSuffix("/proxyv2:" + cluster.Tag)))
		within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(l7, "waypoint")) })
		stopL4()
		stopL7()
		for _, p := range podNames(ctx) {
			Expect(before).NotTo(ContainElement(p), "it was not replaced")
		}
	})

	It("leaves a mesh that works and takes up changes", func(ctx SpecContext) {
		for _, name := range []string{ns, l7} {
			within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(name, "echo-v1")) })
			enrolled(ctx, name, "app=echo")
			stays(ctx, name, "client", "200", "http://echo/")
		}
		through(ctx, l7, "http://echo/")
	})
})

// images are those of the pods of a selector.
func images(ctx context.Context, ns, selector string) (out []string, err error) {
	pods, err := cluster.Pods(ctx, ns, selector)
	for i := range pods {
		out = append(out, pods[i].Spec.Containers[0].Image)
	}
	return out, err
}
