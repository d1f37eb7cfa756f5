package cluster

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func examplePod(name string) *corev1.Pod {
	yes := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "ns", UID: "u", ResourceVersion: "1", GenerateName: "g-", Labels: map[string]string{"app": "a", "pod-template-hash": "h"},
			Annotations:     map[string]string{annotationLastApplied: "x", "ambient.istio.io/redirection": "enabled", "notistio.io/x": "y", "prometheus.io/port": "1"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "a-h", UID: "o", Controller: &yes, BlockOwnerDeletion: &yes}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m"}}, Finalizers: []string{"f"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n", ServiceAccountName: "s", HostNetwork: true, Volumes: []corev1.Volume{{Name: "v"}},
			Containers: []corev1.Container{{Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "e"}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: "TCP"}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, HostIP: "10.0.0.9",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, Reason: "r", LastTransitionTime: metav1.Now()}},
			InitContainerStatuses: []corev1.ContainerStatus{
				{Name: "good", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
				{Name: "bad", LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 126, Message: "m", ContainerID: "x"}}},
			},
		},
	}
}

func TestPodsAreReducedAndShareWhatTheyHaveInCommon(t *testing.T) {
	s := newStripper()
	a, b := examplePod("a"), examplePod("b")
	s.strip(a)
	s.strip(b)
	yes := true
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "a", Namespace: "ns", UID: "u", ResourceVersion: "1", Labels: map[string]string{"app": "a", "pod-template-hash": "h"},
			Annotations:     map[string]string{"ambient.istio.io/redirection": "enabled"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "a-h", Controller: &yes}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n", ServiceAccountName: "s", HostNetwork: true,
			Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: "TCP"}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			InitContainerStatuses: []corev1.ContainerStatus{
				{Name: "bad", LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 126, Message: "m"}}},
			},
		},
	}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("reduced to %+v\nwant %+v", a, want)
	}
	if reflect.ValueOf(a.Labels).Pointer() != reflect.ValueOf(b.Labels).Pointer() || &a.Spec.Containers[0] != &b.Spec.Containers[0] ||
		&a.Status.Conditions[0] != &b.Status.Conditions[0] || &a.OwnerReferences[0] != &b.OwnerReferences[0] {
		t.Error("nothing is shared")
	}
	c := examplePod("c")
	c.Labels["app"], c.Spec.Containers[0].Ports[0].ContainerPort, c.Status.Conditions[0].Status, c.OwnerReferences[0].Name = "c", 81, "False", "c-h"
	s.strip(c)
	if a.Labels["app"] != "a" || c.Labels["app"] != "c" || c.Spec.Containers[0].Ports[0].ContainerPort != 81 || c.Status.Conditions[0].Status != "False" || c.OwnerReferences[0].Name != "c-h" {
		t.Error("too much is shared")
	}
	before := c.DeepCopy()
	s.strip(c)
	if !reflect.DeepEqual(before, c) {
		t.Error("not idempotent")
	}
}

func TestEndpointsThatArePodsAreLeftOut(t *testing.T) {
	slice := func(manager string) *discoveryv1.EndpointSlice {
		e := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "a", UID: "u"}},
			{Addresses: []string{"10.0.0.2"}, TargetRef: &corev1.ObjectReference{Kind: "Node", Name: "n", UID: "u"}},
			{Addresses: []string{"10.0.0.3"}},
		}}
		e.Labels = map[string]string{discoveryv1.LabelManagedBy: manager}
		newStripper().strip(e)
		return e
	}
	if e := slice(sliceController); len(e.Endpoints) != 2 || e.Endpoints[0].Addresses[0] != "10.0.0.2" || e.Endpoints[0].TargetRef.UID != "" {
		t.Errorf("left %+v", e.Endpoints)
	}
	if e := slice("somebody"); len(e.Endpoints) != 3 || e.Endpoints[0].TargetRef.Name != "a" || e.Endpoints[0].TargetRef.UID != "u" || e.Endpoints[1].TargetRef.UID != "" {
		t.Errorf("left of a slice that somebody has written: %+v", e.Endpoints)
	}
}
