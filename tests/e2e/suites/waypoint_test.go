//go:build e2e

package suites

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("A waypoint", Ordered, func() {
	const ns = "e2e-waypoint"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
		waypoint(ctx, ns, "waypoint", "")
		through(ctx, ns, "http://echo/")
	})

	It("is programmed, and its services say that they are bound (TestWaypointStatus)", func(ctx SpecContext) {
		Eventually(ctx, func() (string, error) { return condition(ctx, "gateways", ns, "waypoint", "Programmed") }).Should(Equal("True"))
		Eventually(ctx, func() (string, error) {
			s, err := cluster.Client.CoreV1().Services(ns).Get(ctx, "echo", metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			for _, c := range s.Status.Conditions {
				if c.Type == "istio.io/WaypointBound" {
					return c.Reason, nil
				}
			}
			return "no condition", nil
		}).Should(Equal("WaypointAccepted"))
	})

	It("splits traffic 90/10 (TestTrafficSplit)", func(ctx SpecContext) {
		apply(ctx, ns, route("echo", "split", `
  - backendRefs: [{name: echo-v1, port: 80, weight: 90}, {name: echo-v2, port: 80, weight: 10}]`))
		Eventually(ctx, func() (float64, error) { return share(ctx, ns, "http://echo/", "v2", 300) }).WithTimeout(patience).Should(BeNumerically("~", 0.10, 0.06))
	})

	It("routes by header, with a response header of its own (TestServerRouting)", func(ctx SpecContext) {
		apply(ctx, ns, route("echo", "headers", `
  - matches: [{headers: [{name: end-user, value: jason}]}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-routed, value: by-header}]}}]
    backendRefs: [{name: echo-v2, port: 80}]
  - backendRefs: [{name: echo-v1, port: 80}]`))
		Eventually(ctx, func() string { return curl(ctx, ns, "client", "-H", "end-user: jason", "http://echo/").Text }).Should(ContainSubstring("x-routed: by-header"))
		for range 10 {
			Expect(curl(ctx, ns, "client", "-H", "end-user: jason", "http://echo/").Version()).To(Equal("v2"))
			Expect(curl(ctx, ns, "client", "http://echo/").Version()).To(Equal("v1"))
		}
	})

	It("takes VirtualServices and DestinationRules (TestDestinationRule)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo}
spec: {host: echo, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  hosts: [echo]
  http:
  - match: [{uri: {prefix: /fault}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: echo, subset: v1}}]
  - route: [{destination: {host: echo, subset: v2}}]
`)
		answers(ctx, ns, "client", "418", "http://echo/fault")
		for range 10 {
			Expect(curl(ctx, ns, "client", "http://echo/").Version()).To(Equal("v2"))
		}
	})

	It("answers 500 for a backend that does not exist (TestWaypointWithInvalidBackend)", func(ctx SpecContext) {
		apply(ctx, ns, route("echo", "invalid", `
  - backendRefs: [{name: not-there, port: 80}]`))
		answers(ctx, ns, "client", "500", "http://echo/")
		Eventually(ctx, func() (string, error) { return routeCondition(ctx, ns, "invalid", "ResolvedRefs") }).Should(Equal("False"))
	})

	It("counts requests with the client's identity (TestL7Telemetry)", func(ctx SpecContext) {
		answers(ctx, ns, "client", "200", "http://echo/")
		Eventually(ctx, func() (string, error) {
			p, err := cluster.Pod(ctx, ns, "gateway.networking.k8s.io/gateway-name=waypoint")
			if err != nil {
				return "", err
			}
			return metricsOf(ctx, ns, p.Name, 15020)
		}).Should(MatchRegexp(`istio_requests_total\{[^}]*source_principal="spiffe://cluster.local/ns/%s/sa/client"`, ns))
	})

	It("is scaled, and replaced, under load without a failed request (TestWaypointChanges)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		w := lab.Deployment(ns, "waypoint")
		within(ctx, func(ctx context.Context) error { return cluster.Scale(ctx, w, 2) })
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, w) })
		within(ctx, func(ctx context.Context) error { return cluster.Scale(ctx, w, 1) })
		stop()
	})

	It("comes and goes under load without a failed request (TestRemoveAddWaypoint)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error {
			return cluster.Label(ctx, ns, map[string]string{"istio.io/use-waypoint": "none"})
		})
		Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://echo/").Text }).ShouldNot(ContainSubstring("server: istio-envoy"))
		within(ctx, func(ctx context.Context) error {
			return cluster.Label(ctx, ns, map[string]string{"istio.io/use-waypoint": "waypoint"})
		})
		through(ctx, ns, "http://echo/")
		stop()
	})

	It("that does not exist leaves traffic alone, and the service says so (TestBogusUseWaypoint)", func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error {
			return cluster.Label(ctx, ns, map[string]string{"istio.io/use-waypoint": "bogus"})
		})
		DeferCleanup(func(ctx SpecContext) {
			within(ctx, func(ctx context.Context) error {
				return cluster.Label(ctx, ns, map[string]string{"istio.io/use-waypoint": "waypoint"})
			})
		})
		Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://echo/").Text }).ShouldNot(ContainSubstring("server: istio-envoy"))
		stays(ctx, ns, "client", "200", "http://echo/")
	})

	It("of another namespace serves those that it allows (TestCrossNamespaceWaypoint)", func(ctx SpecContext) {
		const far = ns + "-far"
		echoes(ctx, far, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "shared", "istio.io/use-waypoint-namespace": ns})
		apply(ctx, ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]
`)
		within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(ns, "shared")) })
		through(ctx, far, "http://echo/")
	})
})

// route is an HTTPRoute of a Service.
func route(service, name, rules string) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec:
  parentRefs: [{group: "", kind: Service, name: %s, port: 80}]
  rules:%s
`, name, service, rules)
}

// through waits until requests pass a waypoint.
func through(ctx context.Context, ns, url string) {
	GinkgoHelper()
	Eventually(ctx, func() string { return curl(ctx, ns, "client", url).Text }).WithTimeout(patience).Should(ContainSubstring("server: istio-envoy"))
}

// share is which part of n requests a version answered.
func share(ctx context.Context, ns, url, version string, n int) (float64, error) {
	out, err := cluster.ExecIn(ctx, ns, "app=client", "sh", "-c", fmt.Sprintf("for i in $(seq %d); do curl -sS -m 10 %s | grep ^Hostname; done", n, url))
	if err != nil {
		return 0, err
	}
	total := strings.Count(out, "Hostname=")
	if total < n {
		return 0, fmt.Errorf("%d of %d requests were answered", total, n)
	}
	return float64(strings.Count(out, "Hostname=echo-"+version)) / float64(total), nil
}

// condition is the status of a condition of an object of the Gateway API.
func condition(ctx context.Context, resource, ns, name, kind string) (string, error) {
	o, err := cluster.Dynamic.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: resource}).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	return find(list, kind), nil
}

// routeCondition is the status of a condition of an HTTPRoute's first parent.
func routeCondition(ctx context.Context, ns, name, kind string) (string, error) {
	o, err := cluster.Dynamic.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	parents, _, _ := unstructured.NestedSlice(o.Object, "status", "parents")
	if len(parents) == 0 {
		return "no parents", nil
	}
	parent, _ := parents[0].(map[string]any)
	list, _, _ := unstructured.NestedSlice(parent, "conditions")
	return find(list, kind), nil
}

func find(conditions []any, kind string) string {
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return fmt.Sprint(m["status"])
		}
	}
	return "none"
}
