//go:build e2e

package suites

import (
	"context"

	. "github.com/onsi/ginkgo/v2"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

const (
	denyIngress = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
`
	allowTunnels = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: tunnels}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 15008}]}]}
`
)

// What the cluster's own network enforces sees the mesh's tunnels, not what is in them.
var _ = Describe("Network policies of the cluster", Ordered, func() {
	const ns, outside = "e2e-netpol", "e2e-netpol-outside"
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, outside, nil)
		deploy(ctx, outside, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	It("are enforced", func(ctx SpecContext) {
		answers(ctx, outside, "client", "200", "http://echo/")
		apply(ctx, outside, denyIngress)
		answers(ctx, outside, "client", "000", "-m", "2", "http://echo/")
	})

	It("that let tunnels in let the mesh in, and nobody else", func(ctx SpecContext) {
		answers(ctx, outside, "client", "200", "http://echo."+ns+"/")
		apply(ctx, ns, denyIngress+"---"+allowTunnels)
		answers(ctx, outside, "client", "000", "-m", "2", "http://echo."+ns+"/")
		answers(ctx, ns, "client", "200", "http://echo/")
		stays(ctx, ns, "client", "200", "http://echo/")
	})

	It("do not keep the kubelet from its probes", func(ctx SpecContext) {
		apply(ctx, ns, denyIngress+"---"+allowTunnels)
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(ns, "echo-v1")) })
		enrolled(ctx, ns, "app=echo")
		answers(ctx, ns, "client", "200", "http://echo/")
	})

	It("that let no tunnels in keep out who has none open", func(ctx SpecContext) {
		apply(ctx, ns, denyIngress)
		// A client that has not spoken yet: what is open stays open, as with every stateful filter.
		deploy(ctx, ns, []string{"late"}, clientManifest("late"))
		enrolled(ctx, ns, "app=late")
		answers(ctx, ns, "late", "000", "-m", "2", "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Delete(ctx, ns, denyIngress) })
		answers(ctx, ns, "late", "200", "http://echo/")
	})
})
