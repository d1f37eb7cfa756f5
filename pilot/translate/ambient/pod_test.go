package ambient

import (
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

func TestNewPod(t *testing.T) {
	whole := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "shop", UID: "1", ResourceVersion: "7", Labels: map[string]string{"app": "a"}},
		Spec: corev1.PodSpec{
			NodeName: "n", HostNetwork: true, Containers: []corev1.Container{{Name: "c"}}, InitContainers: []corev1.Container{{Name: "i"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}, {IP: "10.0.0.1"}, {IP: "no"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	want := &Pod{
		ObjectMeta: whole.ObjectMeta, Node: "n", Account: "default", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Containers: whole.Spec.Containers, InitContainers: whole.Spec.InitContainers, Phase: corev1.PodRunning, HostNetwork: true, Ready: true,
	}
	got := Reduce(whole)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if gvk := got.GetObjectKind().GroupVersionKind(); gvk != kube.PodGVK() {
		t.Errorf("kind is %v", gvk)
	}
	if again := Reduce(got); again != got {
		t.Error("what is reduced is reduced again")
	}
	service := &corev1.Service{}
	if Reduce(service) != kube.Object(service) {
		t.Error("a Service is not left alone")
	}
	for _, c := range []struct {
		phase corev1.PodPhase
		ended bool
	}{{corev1.PodPending, false}, {corev1.PodRunning, false}, {corev1.PodSucceeded, true}, {corev1.PodFailed, true}} {
		if ended := NewPod(&corev1.Pod{Status: corev1.PodStatus{Phase: c.phase, PodIP: "10.0.0.2"}}).Ended(); ended != c.ended {
			t.Errorf("%s: ended is %v", c.phase, ended)
		}
	}
}
