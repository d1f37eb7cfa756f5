//go:build e2e

package suites

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("Under load", Ordered, func() {
	const ns = "e2e-restarts"
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 2), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	It("a rolling update of the application loses no request (TestServiceRestart)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(ns, "echo-v1")) })
		stop()
	})

	It("a restart of the control plane loses no request (TestAPIServer)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Istiod()) })
		stop()
	})

	It("a restart of the node agents loses no request, and new pods are enrolled after it (TestTrafficWithCNIUpgrade)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.CNI()) })
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(ns, "echo-v1")) })
		enrolled(ctx, ns, "app=echo")
		stop()
	})

	It("a restart of the node proxies loses no request (TestZtunnelRestart)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Ztunnel()) })
		stop()
		enrolled(ctx, ns, "app=echo")
	})

	It("goes on while the API server is away, for new connections too, also through a node proxy that starts then", func(ctx SpecContext) {
		node, err := cluster.ControlPlaneNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		client, err := cluster.Pod(ctx, ns, "app=client")
		Expect(err).NotTo(HaveOccurred())
		// The load is started inside the pod and read afterwards: there is no way in while the API server is away.
		script := "for i in $(seq 400); do curl -sS -o /dev/null -m 5 --fail http://echo/ || echo failed; sleep 0.05; done > /tmp/out 2>&1; echo done >> /tmp/out"
		_, err = cluster.Exec(ctx, ns, client.Name, "sh", "-c", "("+script+") >/dev/null 2>&1 &")
		Expect(err).NotTo(HaveOccurred())
		move := func(ctx context.Context, from, to string) error {
			return cluster.Docker(ctx, "exec", node, "mv", from, to)
		}
		const manifest, aside = "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kube-apiserver.yaml"
		Expect(move(ctx, manifest, aside)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { _ = move(ctx, aside, manifest) }) // fails when it is back already
		Eventually(ctx, func() error { _, err := cluster.Pods(ctx, ns, ""); return err }).WithTimeout(patience).ShouldNot(Succeed())
		inside := func(command string) error {
			return cluster.Docker(ctx, "exec", client.Spec.NodeName, "sh", "-c", `crictl exec -s "$(crictl ps -q --name curl --label io.kubernetes.pod.name=`+client.Name+`)" `+command)
		}
		Eventually(ctx, func() error { return inside("grep -q done /tmp/out") }).WithTimeout(patience).Should(Succeed())

		By("starting the node's proxy anew: its token has to be believed without the API server")
		Expect(cluster.Docker(ctx, "exec", client.Spec.NodeName, "sh", "-c",
			`old=$(crictl ps -q --label io.kubernetes.pod.namespace=istio-system --label io.kubernetes.container.name=istio-proxy) && test -n "$old" && crictl stop -t 1 $old`)).To(Succeed())
		Eventually(ctx, func() error { return inside("curl -sS -o /dev/null -m 3 --fail http://echo/") }).WithTimeout(patience).Should(Succeed())

		Expect(move(ctx, aside, manifest)).To(Succeed())
		Eventually(ctx, func() error { _, err := cluster.Pods(ctx, ns, ""); return err }).WithTimeout(patience).Should(Succeed())
		Expect(cluster.Exec(ctx, ns, client.Name, "cat", "/tmp/out")).To(Equal("done\n"))
		// And what changes afterwards is taken up.
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(ns, "echo-v1")) })
		answers(ctx, ns, "client", "200", "http://echo/")
	})
})

var _ = Describe("A node that reboots", Ordered, Serial, func() {
	const ns = "e2e-reboot"
	It("brings its pods back inside the mesh", func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
`)
		answers(ctx, ns, "client", "200", "http://echo/")
		pod, err := cluster.Pod(ctx, ns, "app=echo")
		Expect(err).NotTo(HaveOccurred())
		within(ctx, func(ctx context.Context) error { return cluster.RestartNode(ctx, pod.Spec.NodeName) })
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel(), lab.Deployment(ns, "echo-v1"), lab.Deployment(ns, "client"))
		})
		enrolled(ctx, ns, "app=echo")
		answers(ctx, ns, "client", "200", "http://echo/")
		stays(ctx, ns, "client", "200", "http://echo/")
	})
})
