//go:build e2e

package suites

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var _ = Describe("Enrolment", Ordered, func() {
	const ns = "e2e-enrol"
	strict := `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
`
	BeforeAll(func(ctx SpecContext) { echoes(ctx, ns, nil) })

	It("takes running pods in and lets them go without a lost request (TestServiceDynamicEnroll)", func(ctx SpecContext) {
		before := uids(ctx, ns)
		stop := load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error { return cluster.Label(ctx, ns, ambient()) })
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
		stop()
		stop = load(ctx, ns, "client", "http://echo/")
		within(ctx, func(ctx context.Context) error {
			return cluster.Label(ctx, ns, map[string]string{"istio.io/dataplane-mode": ""})
		})
		Eventually(ctx, func() ([]string, error) { return redirection(ctx, ns, "app=echo") }).Should(HaveEach(BeEmpty()))
		stop()
		Expect(uids(ctx, ns)).To(Equal(before), "pods were replaced")
	})

	It("keeps a connection open that is older than it", func(ctx SpecContext) {
		pod, err := cluster.Pod(ctx, ns, "app=client")
		Expect(err).NotTo(HaveOccurred())
		// One connection, a request before and after: curl reuses it.
		done := make(chan Answer, 1)
		go func() {
			out, err := cluster.Exec(ctx, ns, pod.Name, "sh", "-c",
				"(printf 'GET / HTTP/1.1\\r\\nHost: echo\\r\\n\\r\\n'; sleep 15; printf 'GET / HTTP/1.1\\r\\nHost: echo\\r\\nConnection: close\\r\\n\\r\\n'; sleep 2) | nc echo 80 | grep -c 'HTTP/1.1 200'")
			done <- Answer{Code: out, Text: errText(err)}
		}()
		within(ctx, func(ctx context.Context) error { return cluster.Label(ctx, ns, ambient()) })
		enrolled(ctx, ns, "app=client")
		var a Answer
		Eventually(ctx, done).WithTimeout(patience).Should(Receive(&a))
		Expect(a.Code).To(Equal("2\n"), a.Text)
	})

	It("has a pod inside before its first container starts", func(ctx SpecContext) {
		apply(ctx, ns, strict)
		enrolled(ctx, ns, "app=echo")
		apply(ctx, ns, cluster.Images(`
apiVersion: v1
kind: Pod
metadata: {name: early}
spec:
  restartPolicy: Never
  containers:
  - name: curl
    image: docker.io/isthmus/curl:dev
    imagePullPolicy: IfNotPresent
    command: [curl, -sS, -m, "10", --fail, "http://echo/"]
`))
		Eventually(ctx, func() (string, error) {
			p, err := cluster.Client.CoreV1().Pods(ns).Get(ctx, "early", metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			return string(p.Status.Phase), nil
		}).WithTimeout(patience).Should(BeElementOf("Succeeded", "Failed"))
		p, err := cluster.Client.CoreV1().Pods(ns).Get(ctx, "early", metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		logs, _ := cluster.Logs(ctx, ns, "", 20)
		Expect(string(p.Status.Phase)).To(Equal("Succeeded"), logs)
	})

	It("leaves out pods that say so, and namespaces that are excluded (TestCNINeverEnrollsPodsInExcludedNamespaces)", func(ctx SpecContext) {
		apply(ctx, ns, cluster.Images(`
apiVersion: v1
kind: Pod
metadata: {name: none, labels: {app: none, istio.io/dataplane-mode: none}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: curl, image: "docker.io/isthmus/curl:dev", imagePullPolicy: IfNotPresent, command: [sleep, infinity]}]
`))
		Eventually(ctx, func() error { _, err := cluster.Pod(ctx, ns, "app=none"); return err }).WithTimeout(patience).Should(Succeed())
		Expect(redirection(ctx, ns, "app=none")).To(HaveEach(BeEmpty()))
		Expect(redirection(ctx, "kube-system", "k8s-app=kube-dns")).To(HaveEach(BeEmpty()))
	})
})

// uids are those of a namespace's pods.
func uids(ctx context.Context, ns string) []string {
	GinkgoHelper()
	pods, err := cluster.Pods(ctx, ns, "")
	Expect(err).NotTo(HaveOccurred())
	var out []string
	for i := range pods {
		out = append(out, string(pods[i].UID))
	}
	return out
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
