//go:build e2e

package suites

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("An enrolled namespace", Ordered, func() {
	const ns = "e2e-ambient"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, ambient())
		namespace(ctx, ns+"-outside", nil)
		deploy(ctx, ns+"-outside", []string{"client"}, clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	It("is reached by service name (TestServices)", func(ctx SpecContext) {
		answers(ctx, ns, "client", "200", "http://echo/")
		answers(ctx, ns, "client", "200", "http://echo."+ns+".svc.cluster.local/")
	})

	It("is reached by pod address (TestPodIP)", func(ctx SpecContext) {
		pod, err := cluster.Pod(ctx, ns, "app=echo,version=v2")
		Expect(err).NotTo(HaveOccurred())
		a := answers(ctx, ns, "client", "200", "http://"+pod.Status.PodIP+":8080/")
		Expect(a.Pod()).To(Equal(pod.Name))
	})

	It("spreads connections over the service's pods (TestServerSideLB)", func(ctx SpecContext) {
		seen := map[string]bool{}
		Eventually(ctx, func() int {
			seen[curl(ctx, ns, "client", "http://echo/").Version()] = true
			return len(seen)
		}).Should(Equal(2))
	})

	It("answers clients outside the mesh, which are not refused by default (TestDirect)", func(ctx SpecContext) {
		answers(ctx, ns+"-outside", "client", "200", "http://echo."+ns+"/")
	})

	It("carries mutual TLS with the identities of both accounts (TestMTLS, TestL4Telemetry)", func(ctx SpecContext) {
		answers(ctx, ns, "client", "200", "http://echo-v1/")
		Eventually(ctx, func() (string, error) { return ztunnelMetrics(ctx) }).Should(MatchRegexp(
			`istio_tcp_connections_opened_total\{[^}]*connection_security_policy="mutual_tls"[^}]*destination_principal="spiffe://cluster.local/ns/%[1]s/sa/echo-v1"[^}]*source_principal="spiffe://cluster.local/ns/%[1]s/sa/client"`, ns))
	})

	It("keeps every pod behind kubelet's probes ready", func(ctx SpecContext) {
		pods, err := cluster.Pods(ctx, ns, "app=echo")
		Expect(err).NotTo(HaveOccurred())
		for i := range pods {
			Expect(lab.Ready(&pods[i])).To(BeTrue(), pods[i].Name)
		}
	})

	It("has a DNS proxy that resolves services and foreign names alike", func(ctx SpecContext) {
		a := answers(ctx, ns, "client", "200", "-k", "https://kubernetes.default.svc/version")
		Expect(a.Text).To(ContainSubstring("gitVersion"))
	})
})

// ztunnelMetrics are those of all node proxies, through the API server.
func ztunnelMetrics(ctx context.Context) (string, error) {
	pods, err := cluster.Pods(ctx, lab.SystemNamespace, "app=ztunnel")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i := range pods {
		text, err := metricsOf(ctx, lab.SystemNamespace, pods[i].Name, 15020)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func metricsOf(ctx context.Context, ns, pod string, port int) (string, error) {
	text, err := cluster.Client.CoreV1().RESTClient().Get().Namespace(ns).Resource("pods").Name(fmt.Sprintf("%s:%d", pod, port)).
		SubResource("proxy").Suffix("stats/prometheus").DoRaw(ctx)
	if err != nil {
		text, err = cluster.Client.CoreV1().RESTClient().Get().Namespace(ns).Resource("pods").Name(fmt.Sprintf("%s:%d", pod, port)).
			SubResource("proxy").Suffix("metrics").DoRaw(ctx)
	}
	return string(text), err
}
