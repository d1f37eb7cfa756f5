package simulate

import (
	"fmt"
	"hash/fnv"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// template is what pods are made from.
type template struct {
	kind, name, namespace string
	replicas              int
	selector              *metav1.LabelSelector
	pod                   corev1.PodTemplateSpec
}

// templateOf reads the kinds that have one; ok is false for others, and for what another one owns.
func templateOf(o kube.Object) (template, bool) {
	if metav1.GetControllerOf(o) != nil && o.GetObjectKind().GroupVersionKind().Kind != "Deployment" {
		return template{}, false
	}
	t := template{name: o.GetName(), namespace: o.GetNamespace(), replicas: 1, kind: o.GetObjectKind().GroupVersionKind().Kind}
	count := func(n *int32) {
		if n != nil {
			t.replicas = int(*n)
		}
	}
	switch o := o.(type) {
	case *appsv1.Deployment:
		t.selector, t.pod = o.Spec.Selector, o.Spec.Template
		count(o.Spec.Replicas)
	case *appsv1.StatefulSet:
		t.selector, t.pod = o.Spec.Selector, o.Spec.Template
		count(o.Spec.Replicas)
	case *appsv1.ReplicaSet:
		t.selector, t.pod = o.Spec.Selector, o.Spec.Template
		count(o.Spec.Replicas)
	case *appsv1.DaemonSet:
		t.selector, t.pod = o.Spec.Selector, o.Spec.Template
	default:
		return t, false
	}
	return t, true
}

// workloads makes the pods of those that have none.
func (x *completion) workloads() {
	pods := map[string][]*corev1.Pod{} // by namespace
	for _, o := range x.out.Objects {
		if p, ok := o.(*corev1.Pod); ok {
			pods[p.Namespace] = append(pods[p.Namespace], p)
		}
	}
	for _, o := range slices.Clone(x.out.Objects) {
		t, ok := templateOf(o)
		if !ok || slices.ContainsFunc(pods[t.namespace], func(p *corev1.Pod) bool { return selects(t.selector, p.Labels) }) {
			continue
		}
		for i := range t.replicas {
			p := t.instance(i)
			if x.byKey["/"+keyOf("Pod", p)] == nil {
				x.add(p, keyOf(t.kind, o))
			}
		}
	}
}

// instance makes one of the pods, always of the same name.
func (t template) instance(i int) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: *t.pod.ObjectMeta.DeepCopy(), Spec: *t.pod.Spec.DeepCopy()}
	hash := suffix(t.namespace+"/"+t.name, 10)
	p.Namespace, p.Name = t.namespace, fmt.Sprintf("%s-%s-%s", t.name, hash, suffix(fmt.Sprintf("%s/%s/%d", t.namespace, t.name, i), 5))
	owner, yes := metav1.OwnerReference{APIVersion: "apps/v1", Kind: t.kind, Name: t.name}, true
	owner.Controller = &yes
	switch t.kind {
	case "StatefulSet":
		p.Name = fmt.Sprintf("%s-%d", t.name, i)
	case "DaemonSet":
		p.Name = t.name + "-" + suffix(t.namespace+"/"+t.name, 5)
	case "Deployment":
		owner.Kind, owner.Name = "ReplicaSet", t.name+"-"+hash
		metav1.SetMetaDataLabel(&p.ObjectMeta, "pod-template-hash", hash)
	}
	p.OwnerReferences = []metav1.OwnerReference{owner}
	return p
}

// suffix is what a cluster would draw: letters and digits of which no words are made.
func suffix(of string, length int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	h := fnv.New64a()
	h.Write([]byte(of))
	n := h.Sum64()
	out := make([]byte, length)
	for i := range out {
		out[i] = alphabet[n%uint64(len(alphabet))]
		n /= uint64(len(alphabet))
	}
	return string(out)
}
