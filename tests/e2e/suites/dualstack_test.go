//go:build e2e

package suites

import (
	"context"
	"fmt"
	"net"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var _ = Describe("Both families of addresses", Ordered, func() {
	const ns, outside = "e2e-dual", "e2e-dual-outside"
	families := []string{"-4", "-6"}
	BeforeAll(func(ctx SpecContext) {
		nodes, err := cluster.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		if len(nodes.Items) == 0 || len(nodes.Items[0].Spec.PodCIDRs) < 2 {
			Skip("the cluster has one: make e2e FAMILY=dual has both")
		}
		namespace(ctx, ns, ambient())
		namespace(ctx, outside, nil)
		dual := strings.ReplaceAll(echoManifest("v1", 1), "spec:\n  selector: {app: echo", "spec:\n  ipFamilyPolicy: RequireDualStack\n  selector: {app: echo")
		deploy(ctx, ns, []string{"echo-v1", "client"}, dual, clientManifest("client"))
		deploy(ctx, outside, []string{"client"}, clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	for _, family := range families {
		It("reach services, and pods by their addresses, by "+family, func(ctx SpecContext) {
			a := answers(ctx, ns, "client", "200", family, "http://echo/")
			Expect(a.Pod()).NotTo(BeEmpty())
			answers(ctx, outside, "client", "200", family, "http://echo."+ns+"/")
			pod, err := cluster.Pod(ctx, ns, "app=echo")
			Expect(err).NotTo(HaveOccurred())
			Expect(pod.Status.PodIPs).To(HaveLen(2))
			for _, ip := range pod.Status.PodIPs {
				if strings.Contains(ip.IP, ":") == (family == "-6") {
					Expect(answers(ctx, ns, "client", "200", "http://"+net.JoinHostPort(ip.IP, "8080")+"/").Pod()).To(Equal(pod.Name))
				}
			}
		})

		It("have policies by "+family, func(ctx SpecContext) {
			apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-client}
spec: {action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/client]}}]}]}
`, ns))
			answers(ctx, outside, "client", refused, family, "http://echo."+ns+"/")
			stays(ctx, outside, "client", refused, family, "http://echo."+ns+"/")
			stays(ctx, ns, "client", "200", family, "http://echo/")
		})
	}

	It("pass waypoints", func(ctx SpecContext) {
		waypoint(ctx, ns, "waypoint", "")
		within(ctx, func(ctx context.Context) error {
			return cluster.Label(ctx, ns, map[string]string{"istio.io/use-waypoint": "waypoint"})
		})
		for _, family := range families {
			Eventually(ctx, func() string { return curl(ctx, ns, "client", family, "http://echo/").Text }).WithTimeout(patience).Should(ContainSubstring("server: istio-envoy"))
			stays(ctx, ns, "client", "200", family, "http://echo/")
		}
	})
})
