package cluster

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// shortPod stands for a type of less than a pod.
type shortPod struct {
	metav1.PartialObjectMetadata
	node string
}

func TestReduce(t *testing.T) {
	f := &forwarder{kind: kube.PodGVK(), queue: newQueue(), strip: newStripper(), reduce: func(o kube.Object) kube.Object {
		p := o.(*corev1.Pod)
		return &shortPod{metav1.PartialObjectMetadata{TypeMeta: p.TypeMeta, ObjectMeta: p.ObjectMeta}, p.Spec.NodeName}
	}}
	pod := func(version, node, image string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "shop", ResourceVersion: version}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Image: image}}}}
	}
	s := newState()
	all := func(string) bool { return true }
	for _, step := range []struct {
		in    *corev1.Pod
		tells bool
	}{{pod("1", "n", "x"), true}, {pod("2", "n", "y"), false}, {pod("3", "m", "y"), true}} {
		p, err := f.convert(step.in)
		if err != nil {
			t.Fatal(err)
		}
		s.put(*p, all)
		upserts, _, _ := s.take()
		if tells := len(upserts) == 1; tells != step.tells {
			t.Fatalf("version %s: told %v", step.in.ResourceVersion, upserts)
		}
		if step.tells {
			if short, ok := upserts[0].(*shortPod); !ok || short.node != step.in.Spec.NodeName || short.GroupVersionKind() != kube.PodGVK() {
				t.Fatalf("got %+v", upserts[0])
			}
		}
	}
}
