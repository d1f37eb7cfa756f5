//go:build envtest

package untaint

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

func TestUntaint(t *testing.T) {
	config := kubetest.Start(t, kubetest.WithoutCRDs(), kubetest.WithFlags("--disable-admission-plugins=ServiceAccount"))
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Client: client, Namespace: "default", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	other := corev1.Taint{Key: "other", Effect: corev1.TaintEffectNoSchedule}
	for _, name := range []string{"one", "two"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{
			{Key: Taint, Effect: corev1.TaintEffectNoSchedule}, other, {Key: Taint, Effect: corev1.TaintEffectNoExecute},
		}}}
		if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"else", "agent"} {
		node, labels := "one", map[string]string{agentLabel: agentName}
		if name == "else" {
			node, labels = "two", map[string]string{"app": name}
		}
		pod, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if tainted(t, client, "one") != 2 {
			t.Error("one is open before its agent is ready")
		}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := client.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if name == "agent" {
			wait.Until(t, time.Minute, "one is open", func() bool { return tainted(t, client, "one") == 0 }, nil)
		}
	}
	if tainted(t, client, "two") != 2 {
		t.Error("two is open, though its pod is no agent")
	}
	n, err := client.CoreV1().Nodes().Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil || !slices.Contains(n.Spec.Taints, other) {
		t.Errorf("%v %v", err, n.Spec.Taints)
	}
}

func tainted(t *testing.T, client kubernetes.Interface, name string) int {
	t.Helper()
	n, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, taint := range n.Spec.Taints {
		if taint.Key == Taint {
			count++
		}
	}
	return count
}
