//go:build e2e

package suites

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A ServiceEntry", Ordered, func() {
	const ns = "e2e-entries"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, ambient())
		namespace(ctx, ns+"-outside", nil)
		deploy(ctx, ns+"-outside", []string{"echo-v1"}, echoManifest("v1", 1))
		enrolled(ctx, ns, "app=client")
	})
	entry := func(host, rest string) string {
		return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
%s
`, host, rest)
	}

	It("with an endpoint of its own gets an address and a name (TestServiceEntryInlinedWorkloadEntry)", func(ctx SpecContext) {
		pod, err := cluster.Pod(ctx, ns, "app=echo,version=v2")
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, ns, entry("inline.example.com", "  resolution: STATIC\n  endpoints: [{address: "+pod.Status.PodIP+"}]"))
		a := answers(ctx, ns, "client", "200", "http://inline.example.com/")
		Expect(a.Version()).To(Equal("v2"))
		Eventually(ctx, func() (string, error) {
			return cluster.ExecIn(ctx, ns, "app=client", "sh", "-c", "getent hosts inline.example.com || nslookup inline.example.com")
		}).Should(MatchRegexp(`240\.240\.|2001:2::`))
	})

	It("selects WorkloadEntries (TestServiceEntrySelectsWorkloadEntry)", func(ctx SpecContext) {
		pod, err := cluster.Pod(ctx, ns, "app=echo,version=v1")
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, ns, entry("selected.example.com", "  resolution: STATIC\n  workloadSelector: {labels: {kind: vm}}")+fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, labels: {kind: vm}}
spec: {address: %s, labels: {kind: vm}}
`, pod.Status.PodIP))
		answers(ctx, ns, "client", "200", "http://selected.example.com/")
	})

	It("selects pods outside the mesh (TestServiceEntrySelectsUncapturedPod)", func(ctx SpecContext) {
		apply(ctx, ns+"-outside", entry("plain.example.com", "  resolution: STATIC\n  workloadSelector: {labels: {app: echo}}"))
		answers(ctx, ns, "client", "200", "http://plain.example.com/")
	})

	It("is resolved by name (TestServiceEntryDNSWithAutoAssign)", func(ctx SpecContext) {
		apply(ctx, ns, entry("alias.example.com", "  resolution: DNS\n  endpoints: [{address: echo-v1."+ns+".svc.cluster.local, ports: {http: 80}}]"))
		answers(ctx, ns, "client", "200", "http://alias.example.com/")
	})
})
