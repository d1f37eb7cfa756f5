//go:build e2e

package suites

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("The node agent", Ordered, Serial, func() {
	const ns = "e2e-agent"
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
	})

	It("may be away: pods go on, and no new one starts outside the mesh (TestTrafficWithEstablishedPodsIfCNIMissing, TestTrafficWithCNIRepair)", func(ctx SpecContext) {
		stop := load(ctx, ns, "client", "http://echo/")
		DeferCleanup(func(ctx SpecContext) { agentsRun(ctx, true) })
		agentsRun(ctx, false)
		Eventually(ctx, func() ([]corev1.Pod, error) { return cluster.Pods(ctx, lab.SystemNamespace, "k8s-app=istio-cni-node") }).
			WithTimeout(patience).Should(BeEmpty())
		deploy(ctx, ns, nil, echoManifest("v2", 1))
		Eventually(ctx, func() (string, error) { return events(ctx, ns, "FailedCreatePodSandBox") }).WithTimeout(patience).Should(ContainSubstring("istio-cni"))
		pods, err := cluster.Pods(ctx, ns, "app=echo,version=v2")
		Expect(err).NotTo(HaveOccurred())
		for i := range pods {
			Expect(pods[i].Status.Phase).To(Equal(corev1.PodPending), pods[i].Name)
		}
		stop()

		agentsRun(ctx, true)
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.CNI(), lab.Deployment(ns, "echo-v2"))
		})
		enrolled(ctx, ns, "app=echo,version=v2")
		answers(ctx, ns, "client", "200", "http://echo-v2/")
	})

	It("puts its plugin back where somebody else rewrote the network's configuration (TestCNIMisconfigHealsOnRestart)", func(ctx SpecContext) {
		workers, err := cluster.Workers(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, node := range workers {
			file, text := pluginFile(ctx, node)
			Expect(cluster.Docker(ctx, "exec", node, "sh", "-c",
				"echo "+base64.StdEncoding.EncodeToString(without(text, "istio-cni"))+" | base64 -d >"+file+".new && mv "+file+".new "+file)).To(Succeed())
		}
		for _, node := range workers {
			Eventually(ctx, func() error {
				return cluster.Docker(ctx, "exec", node, "sh", "-c", "grep -rl istio-cni /etc/cni/net.d")
			}).WithTimeout(patience).Should(Succeed(), node)
		}
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(ns, "echo-v1")) })
		enrolled(ctx, ns, "app=echo")
		answers(ctx, ns, "client", "200", "http://echo-v1/")
	})

	It("has a node's taint taken off once it is ready there (TestTaintsRemoved)", func(ctx SpecContext) {
		DeferCleanup(func(ctx SpecContext) { upgrade(ctx) }) // the installation as it was
		upgrade(ctx, "values.pilot.taint.enabled=true")
		workers, err := cluster.Workers(ctx)
		Expect(err).NotTo(HaveOccurred())
		const taint = "cni.istio.io/not-ready"
		_, err = cluster.Client.CoreV1().Nodes().Patch(ctx, workers[0], types.StrategicMergePatchType,
			[]byte(`{"spec":{"taints":[{"key":"`+taint+`","effect":"NoSchedule"}]}}`), metav1.PatchOptions{})
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() ([]string, error) {
			n, err := cluster.Client.CoreV1().Nodes().Get(ctx, workers[0], metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			var keys []string
			for _, t := range n.Spec.Taints {
				keys = append(keys, t.Key)
			}
			return keys, nil
		}).WithTimeout(patience).ShouldNot(ContainElement(taint))
	})
})

// agentsRun has the node agents run where the chart says, or, by a label more in their selector, which no node has, nowhere.
func agentsRun(ctx context.Context, run bool) {
	GinkgoHelper()
	wanted := `"true"`
	if run {
		wanted = "null" // takes the label away
	}
	_, err := cluster.Client.AppsV1().DaemonSets(lab.SystemNamespace).Patch(ctx, lab.CNI().Name, types.MergePatchType,
		[]byte(`{"spec":{"template":{"spec":{"nodeSelector":{"e2e/nowhere":`+wanted+`}}}}}`), metav1.PatchOptions{})
	Expect(err).NotTo(HaveOccurred())
}

// events are the messages of the events of a namespace that have a reason.
func events(ctx context.Context, ns, reason string) (string, error) {
	list, err := cluster.Client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i := range list.Items {
		fmt.Fprintln(&b, list.Items[i].Message)
	}
	return b.String(), nil
}

// pluginFile is the network configuration of a node that names the mesh's plugin: its path and what it says.
func pluginFile(ctx context.Context, node string) (path, text string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		out, err := cluster.DockerOutput(ctx, "exec", node, "sh", "-c", `f=$(grep -rl istio-cni /etc/cni/net.d | head -1) && echo "$f" && cat "$f"`)
		if err == nil {
			path, text, _ = strings.Cut(out, "\n")
		}
		return err
	}).WithTimeout(time.Minute).Should(Succeed())
	return path, text
}

// without is a list of network plugins without one of them.
func without(conflist, plugin string) []byte {
	GinkgoHelper()
	var list map[string]any
	Expect(json.Unmarshal([]byte(conflist), &list)).To(Succeed(), conflist)
	var kept []any
	plugins, _ := list["plugins"].([]any)
	for _, p := range plugins {
		if m, ok := p.(map[string]any); !ok || m["type"] != plugin {
			kept = append(kept, p)
		}
	}
	Expect(kept).To(HaveLen(len(plugins)-1), conflist)
	list["plugins"] = kept
	out, err := json.Marshal(list)
	Expect(err).NotTo(HaveOccurred())
	return out
}
