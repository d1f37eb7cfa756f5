package install

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// TestProgress: in a log, a line for each component, and for what lasts; on a terminal, one line that is rewritten.
func TestProgress(t *testing.T) {
	t.Parallel()
	play := func(live bool) string {
		var b strings.Builder
		now := time.Unix(0, 0)
		p := NewProgress(&b, live)
		p.now = func() time.Time { return now }
		p.Started(render.Pilot)
		p.Waiting(render.Pilot, "a")
		now = now.Add(20 * time.Second)
		p.Waiting(render.Pilot, "b")
		p.Waiting(render.Pilot, "b")
		p.Done(render.Pilot)
		p.Finished("Installation complete")
		return b.String()
	}
	if got, want := play(false), "- Processing resources for Pilot. Waiting for b\n✔ Istiod installed 🧠\n✔ Installation complete\n"; got != want {
		t.Errorf("log:\n%s\nwant\n%s", got, want)
	}
	const clear = "\r\033[K"
	want := clear + "- Processing resources for Pilot." + clear + "- Processing resources for Pilot. Waiting for a" + clear +
		"- Processing resources for Pilot. Waiting for b" + clear + "✔ Istiod installed 🧠\n✔ Installation complete\n"
	if got := play(true); got != want {
		t.Errorf("terminal:\n%q\nwant\n%q", got, want)
	}
}

// TestPodReason: the reason that helps, of each way in which a pod is not ready.
func TestPodReason(t *testing.T) {
	t.Parallel()
	waiting := func(reason, message string) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}},
		}}}
	}
	condition := func(kind corev1.PodConditionType, reason, message string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}}}
	}
	for want, status := range map[string]corev1.PodStatus{
		"": {},
		"container c: ImagePullBackOff: no such image":                                                                   waiting("ImagePullBackOff", "no such image"),
		"container c: CreateContainerConfigError: no ConfigMap":                                                          waiting("CreateContainerConfigError", "no ConfigMap"),
		"container c ended with exit code 2 (Error) and waits to be started again: kubectl logs -n ns p -c c --previous": waiting("CrashLoopBackOff", "back-off"),
		"Unschedulable: 0/1 nodes are available":                                                                         condition(corev1.PodScheduled, "Unschedulable", "0/1 nodes are available"),
		"containers with unready status: [c]":                                                                            condition(corev1.ContainersReady, "ContainersNotReady", "containers with unready status: [c]"),
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Status: status}
		if got := podReason(pod); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
