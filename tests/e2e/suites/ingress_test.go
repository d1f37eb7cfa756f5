//go:build e2e

package suites

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("An ingress gateway", Ordered, func() {
	const ns = "e2e-ingress"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, ambient())
		namespace(ctx, ns+"-outside", nil)
		deploy(ctx, ns+"-outside", []string{"client"}, clientManifest("client"))
	})

	It("is deployed from a Gateway and leads into the mesh (TestIngress, TestNorthSouth)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, annotations: {networking.istio.io/service-type: ClusterIP}}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front}
spec:
  parentRefs: [{name: front}]
  hostnames: [echo.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v2}}]
    backendRefs: [{name: echo-v2, port: 80}]
  - backendRefs: [{name: echo-v1, port: 80}]
`)
		within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(ns, "front-istio")) })
		url := "http://front-istio." + ns
		Expect(answers(ctx, ns+"-outside", "client", "200", "-H", "Host: echo.example.com", url+"/").Version()).To(Equal("v1"))
		Expect(answers(ctx, ns+"-outside", "client", "200", "-H", "Host: echo.example.com", url+"/v2").Version()).To(Equal("v2"))
		answers(ctx, ns+"-outside", "client", "404", "-H", "Host: other.example.com", url+"/")
		Eventually(ctx, func() (string, error) { return condition(ctx, "gateways", ns, "front", "Programmed") }).Should(Equal("True"))
	})

	It("of another revision is left to others (TestOtherRevisionIgnored)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: foreign, labels: {istio.io/rev: canary}}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
`)
		Consistently(ctx, func() bool {
			_, err := cluster.Client.AppsV1().Deployments(ns).Get(ctx, "foreign-istio", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}).WithTimeout(10 * time.Second).Should(BeTrue())
	})
})
