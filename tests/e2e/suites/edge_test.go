//go:build e2e

package suites

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("A gateway at the edge", Ordered, func() {
	const ns, outside, host = "e2e-edge", "e2e-edge-outside", "echo.example.com"
	to := []string{"--connect-to", "::edge-istio." + ns + ":"}
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, ambient())
		namespace(ctx, outside, nil)
		deploy(ctx, outside, []string{"client"}, clientManifest("client"))
		certificate(ctx, ns, "edge", host)
		apply(ctx, ns, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: istiod-gateway-credentials}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: istiod-gateway-credentials-istio-system}
subjects: [{kind: ServiceAccount, name: istiod, namespace: istio-system}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, annotations: {networking.istio.io/service-type: ClusterIP}}
spec:
  gatewayClassName: istio
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: echo.example.com, tls: {certificateRefs: [{name: edge}]}}
  - {name: tls, port: 8443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: edge}]}}
  - {name: tcp, port: 9000, protocol: TCP}
`)
		within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(ns, "edge-istio")) })
	})

	It("ends TLS, and takes up another certificate without a restart (TestIngressTLS)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: https}
spec:
  parentRefs: [{name: edge, sectionName: https}]
  rules: [{backendRefs: [{name: echo-v1, port: 80}]}]
`)
		ask := append([]string{"-k", "-v", "https://" + host + "/"}, to...)
		Expect(answers(ctx, outside, "client", "200", ask...).Version()).To(Equal("v1"))
		// Whoever does not say the host's name is not spoken to.
		stays(ctx, outside, "client", "000", "-k", "https://other.example.com/", to[0], to[1])
		certificate(ctx, ns, "edge", host, "second.example.com")
		Eventually(ctx, func() string {
			return curl(ctx, outside, "client", append([]string{"--stderr", "-"}, ask...)...).Text
		}).WithTimeout(patience).Should(ContainSubstring("CN=second.example.com"))
		answers(ctx, outside, "client", "200", ask...)
	})

	It("leads through the waypoint of a service that asks for it (TestIngressToWaypoint)", func(ctx SpecContext) {
		waypoint(ctx, ns, "waypoint", "")
		apply(ctx, ns, `
apiVersion: v1
kind: Service
metadata: {name: behind, labels: {istio.io/use-waypoint: waypoint, istio.io/ingress-use-waypoint: "true"}}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: behind}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [behind.example.com]
  rules: [{backendRefs: [{name: behind, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: at-waypoint}
spec:
  parentRefs: [{group: "", kind: Service, name: behind}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-waypoint, value: "passed"}]}}]
    backendRefs: [{name: echo-v2, port: 80}]
`)
		ask := append([]string{"http://behind.example.com/"}, to...)
		Eventually(ctx, func() string { return curl(ctx, outside, "client", ask...).Text }).WithTimeout(patience).Should(ContainSubstring("x-waypoint: passed"))
		Expect(curl(ctx, outside, "client", ask...).Version()).To(Equal("v2"))
	})

	It("carries connections to where a TCPRoute leads (TestTCPRoute)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: tcp}
spec:
  parentRefs: [{name: edge, sectionName: tcp}]
  rules: [{backendRefs: [{name: echo-v2, port: 9090}]}]
`)
		Eventually(ctx, func() (string, error) {
			return cluster.ExecIn(ctx, outside, "app=client", "sh", "-c", "(echo hello; sleep 1) | nc -w 5 edge-istio."+ns+" 9000")
		}).WithTimeout(patience).Should(And(ContainSubstring("hello"), ContainSubstring("Hostname=echo-v2-")))
	})

	It("carries TLS to where a TLSRoute leads, by the name that the client says (TestTLSRoute)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: tls}
spec:
  parentRefs: [{name: edge, sectionName: tls}]
  hostnames: [echo.example.com]
  rules: [{backendRefs: [{name: echo-v2, port: 80}]}]
`)
		Expect(answers(ctx, outside, "client", "200", "-k", "--http1.1", "https://"+host+":8443/", to[0], to[1]+"8443").Version()).To(Equal("v2"))
		stays(ctx, outside, "client", "000", "-k", "--http1.1", "https://other.example.com:8443/", to[0], to[1]+"8443")
	})
})

// certificate puts a certificate for hosts, signed by itself, into a Secret.
func certificate(ctx context.Context, ns, name string, hosts ...string) {
	GinkgoHelper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[len(hosts)-1]}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	Expect(err).NotTo(HaveOccurred())
	private, err := x509.MarshalPKCS8PrivateKey(key)
	Expect(err).NotTo(HaveOccurred())
	secrets := cluster.Client.CoreV1().Secrets(ns)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		},
	}
	if _, err = secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
	}
	Expect(err).NotTo(HaveOccurred())
}
