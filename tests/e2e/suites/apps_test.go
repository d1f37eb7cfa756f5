//go:build e2e

package suites

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

// echoManifest is a Deployment of the echo server, with an account of its own, and Services of its version and of all versions.
func echoManifest(version string, replicas int) string {
	return cluster.Images(fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: echo-%[1]s}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: &ports
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 9090}
  - {name: grpc, port: 7070}
---
apiVersion: v1
kind: Service
metadata: {name: echo-%[1]s}
spec:
  selector: {app: echo, version: %[1]s}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 9090}
  - {name: grpc, port: 7070}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo-%[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: echo, version: %[1]s}}
  template:
    metadata: {labels: {app: echo, version: %[1]s}}
    spec:
      serviceAccountName: echo-%[1]s
      containers:
      - name: echo
        image: docker.io/isthmus/app:dev
        imagePullPolicy: IfNotPresent
        args: [--port=8080, --tcp=9090, --grpc=7070, --version=%[1]s]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
`, version, replicas))
}

// clientManifest is a pod with curl and a shell, under an account of its own.
func clientManifest(name string) string {
	return cluster.Images(fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      serviceAccountName: %[1]s
      terminationGracePeriodSeconds: 0
      containers:
      - name: curl
        image: docker.io/isthmus/curl:dev
        imagePullPolicy: IfNotPresent
        command: [sleep, infinity]
`, name))
}

// deploy applies manifests of workloads and waits for the Deployments.
func deploy(ctx context.Context, ns string, deployments []string, manifests ...string) {
	GinkgoHelper()
	within(ctx, func(ctx context.Context) error { return cluster.Apply(ctx, ns, strings.Join(manifests, "\n---\n")) })
	for _, d := range deployments {
		within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(ns, d)) })
	}
}

// echoes makes a namespace with two versions of the echo server, and the clients "client" and "other".
func echoes(ctx context.Context, ns string, labels map[string]string) {
	GinkgoHelper()
	namespace(ctx, ns, labels)
	deploy(ctx, ns, []string{"echo-v1", "echo-v2", "client", "other"}, echoManifest("v1", 1), echoManifest("v2", 1), clientManifest("client"), clientManifest("other"))
}

// Answer is what came of one request.
type Answer struct {
	// Code is the status, "000" when there was no answer.
	Code string
	// Text is the head and the body, or curl's complaint.
	Text string
}

// Pod is the name of the pod that answered, if it was an echo server.
func (a Answer) Pod() string {
	if m := regexp.MustCompile(`(?m)^Hostname=(\S+)`).FindStringSubmatch(a.Text); m != nil {
		return m[1]
	}
	return ""
}

// Version is that of the echo server that answered.
func (a Answer) Version() string {
	if m := regexp.MustCompile(`^echo-(v\d+)-`).FindStringSubmatch(a.Pod()); m != nil {
		return m[1]
	}
	return ""
}

// curl asks for a URL from a client of a namespace; arguments are curl's.
func curl(ctx context.Context, ns, client string, args ...string) Answer {
	argv := append([]string{"curl", "-sS", "-i", "-m", "10", "-w", "\n%{http_code}"}, args...)
	out, err := cluster.ExecIn(ctx, ns, "app="+client, argv...)
	at := strings.LastIndexByte(strings.TrimRight(out, "\n"), '\n')
	code := strings.TrimSpace(out[at+1:])
	if err != nil {
		return Answer{Code: "000", Text: out + err.Error()}
	}
	return Answer{Code: code, Text: out[:max(at, 0)]}
}

// answers polls until a request is answered with a code.
func answers(ctx context.Context, ns, client, code string, args ...string) Answer {
	GinkgoHelper()
	var last Answer
	Eventually(ctx, func() string {
		last = curl(ctx, ns, client, args...)
		return last.Code
	}).Should(Equal(code), func() string { return last.Text })
	return last
}

// stays asks some times, and expects the same code each time.
func stays(ctx context.Context, ns, client, code string, args ...string) {
	GinkgoHelper()
	for range 5 {
		a := curl(ctx, ns, client, args...)
		Expect(a.Code).To(Equal(code), a.Text)
	}
}

// redirection is what the node agent says about the pods of a selector.
func redirection(ctx context.Context, ns, selector string) ([]string, error) {
	pods, err := cluster.Pods(ctx, ns, selector)
	var out []string
	for i := range pods {
		out = append(out, pods[i].Annotations["ambient.istio.io/redirection"])
	}
	return out, err
}

// enrolled waits until all pods of a selector are.
func enrolled(ctx context.Context, ns, selector string) {
	GinkgoHelper()
	Eventually(ctx, func() ([]string, error) { return redirection(ctx, ns, selector) }).Should(And(Not(BeEmpty()), HaveEach("enabled")))
}

// load puts load on a URL until the returned function is called, which expects that enough requests were made and none failed. A failure
// shows what node proxies, the namespace's waypoints and gateways have logged around it.
func load(ctx context.Context, ns, client, url string) (stop func()) {
	GinkgoHelper()
	pod, err := cluster.Pod(ctx, ns, "app="+client)
	Expect(err).NotTo(HaveOccurred())
	journal := cluster.OpenJournal(ctx, lab.Pods{Namespace: lab.SystemNamespace, Selector: "app=ztunnel"},
		lab.Pods{Namespace: ns, Selector: "gateway.networking.k8s.io/gateway-name"})
	DeferCleanup(journal.Close)
	l := cluster.StartLoad(ctx, ns, pod.Name, url)
	return func() {
		GinkgoHelper()
		o := l.Stop()
		journal.Close()
		GinkgoWriter.Println(url+":", o)
		Expect(o.Requests).To(BeNumerically(">", 20), o.String())
		Expect(o.Failed).To(BeZero(), func() string { return o.String() + "\n" + o.Around(journal) })
	}
}

// waypoint makes a waypoint in a namespace and waits until it is programmed.
func waypoint(ctx context.Context, ns, name string, labels string) {
	GinkgoHelper()
	apply(ctx, ns, fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, labels: {%s}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`, name, labels))
	within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(ns, name)) })
}
