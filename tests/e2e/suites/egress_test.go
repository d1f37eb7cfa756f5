//go:build e2e

package suites

import (
	"context"
	"fmt"
	"net"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("Traffic that leaves the mesh", Ordered, func() {
	const ns, outside = "e2e-egress", "e2e-egress-outside"
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"client", "other"}, clientManifest("client"), clientManifest("other"))
		enrolled(ctx, ns, "app=client")
		namespace(ctx, outside, nil)
		deploy(ctx, outside, []string{"echo-v1"}, echoManifest("v1", 1))
	})

	It("goes where nothing is known of it (TestOutboundPolicyAllowAny)", func(ctx SpecContext) {
		node, err := cluster.ControlPlaneNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		n, err := cluster.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		var address string
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP && address == "" {
				address = a.Address
			}
		}
		answers(ctx, ns, "client", "200", "-k", "https://"+net.JoinHostPort(address, "6443")+"/livez")
	})

	It("passes the waypoint of its ServiceEntry, with policy and a header of it (TestWaypointAsEgressGateway, TestWaypointDNS)", func(ctx SpecContext) {
		waypoint(ctx, ns, "egress", "")
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, labels: {istio.io/use-waypoint: egress}}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: echo-v1.%[2]s.svc.cluster.local, ports: {http: 80}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api.example.com]
  http: [{route: [{destination: {host: api.example.com}, headers: {request: {set: {x-egress: passed}}}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: api}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/%[1]s/sa/client]}}], to: [{operation: {methods: [GET]}}]}]
`, ns, outside))
		Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://api.example.com/").Text }).WithTimeout(patience).
			Should(And(ContainSubstring("server: istio-envoy"), MatchRegexp("(?i)x-egress[:=] ?passed")))
		answers(ctx, ns, "other", "403", "http://api.example.com/")
		stays(ctx, ns, "client", "403", "-X", "DELETE", "http://api.example.com/")
		stays(ctx, ns, "client", "200", "http://api.example.com/")
	})

	It("says at the waypoint who asks (TestWaypointXFCCClientIdentity)", func(ctx SpecContext) {
		apply(ctx, outside, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: telling, annotations: {ambient.istio.io/xfcc-include-client-identity: "true"}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: told, labels: {istio.io/use-waypoint: telling}}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080}]}
`)
		within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(outside, "telling")) })
		Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://told."+outside+"/").Text }).WithTimeout(patience).
			Should(ContainSubstring("URI=spiffe://cluster.local/ns/" + ns + "/sa/client"))
	})
})

var _ = Describe("ServiceEntries of a mesh that keeps them to their namespaces", Ordered, Serial, SpecPriority(-6), func() {
	const ns, far = "e2e-visible", "e2e-visible-far"
	It("are known there, and nowhere else (TestServiceEntryVisibility)", func(ctx SpecContext) {
		for _, name := range []string{ns, far} {
			namespace(ctx, name, ambient())
			deploy(ctx, name, []string{"client"}, clientManifest("client"))
			enrolled(ctx, name, "app=client")
		}
		deploy(ctx, ns, []string{"echo-v1"}, echoManifest("v1", 1))
		apply(ctx, ns, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: kept}
spec:
  hosts: [kept.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: echo}}
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
`)
		answers(ctx, far, "client", "200", "http://kept.example.com/")
		DeferCleanup(func(ctx SpecContext) { upgrade(ctx) }) // the installation as it was
		upgrade(ctx, "meshConfig.serviceEntryVisibility.defaultVisibility=NAMESPACE")
		answers(ctx, far, "client", "000", "http://kept.example.com/")
		stays(ctx, far, "client", "000", "http://kept.example.com/")
		stays(ctx, ns, "client", "200", "http://kept.example.com/")
	})
})
