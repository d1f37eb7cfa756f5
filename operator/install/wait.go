package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

func pods() schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: "Pod"} }

// wait returns when all objects of a component are ready, or says of each that is not, why.
func (c *Cluster) wait(ctx context.Context, component render.Component, o Options) error {
	limited, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	var waiting []string
	err := poll(limited, func(ctx context.Context) (bool, error) {
		found, err := c.unready(ctx, component.Objects)
		if err != nil {
			return false, err
		}
		waiting = found
		if len(waiting) > 0 {
			o.report().Waiting(component.Name, strings.Join(waiting, "; "))
		}
		return len(waiting) == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%s: not ready after %s:\n  %s", component.Name, o.timeout(), strings.Join(waiting, "\n  "))
	}
	return err
}

// unready returns, for each object that is not ready, its name and why.
func (c *Cluster) unready(ctx context.Context, objects []*unstructured.Unstructured) ([]string, error) {
	var out []string
	for _, want := range objects {
		if !slices.Contains([]string{"Deployment", "DaemonSet", "CustomResourceDefinition"}, want.GetKind()) {
			continue
		}
		u, err := c.get(ctx, want.GroupVersionKind(), want.GetNamespace(), want.GetName())
		if err != nil {
			return nil, err
		}
		if u == nil {
			out = append(out, Name(want)+": does not exist")
			continue
		}
		why, selector, err := state(u)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Name(want), err)
		}
		if why == "" {
			continue
		}
		if selector != nil {
			reasons, err := c.podReasons(ctx, u.GetNamespace(), selector)
			if err != nil {
				return nil, err
			}
			why = strings.Join(append([]string{why}, reasons...), ", ")
		}
		out = append(out, Name(want)+": "+why)
	}
	return out, nil
}

// state says why an object is not ready; empty when it is. selector selects the pods of a workload.
func state(u *unstructured.Unstructured) (why string, selector *metav1.LabelSelector, err error) {
	switch u.GetKind() {
	case "Deployment":
		d := &appsv1.Deployment{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, d); err != nil {
			return "", nil, err
		}
		return deploymentState(d), d.Spec.Selector, nil
	case "DaemonSet":
		d := &appsv1.DaemonSet{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, d); err != nil {
			return "", nil, err
		}
		return daemonSetState(d), d.Spec.Selector, nil
	case "CustomResourceDefinition":
		d := &apiextensionsv1.CustomResourceDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, d); err != nil {
			return "", nil, err
		}
		for _, condition := range d.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return "", nil, nil
			}
		}
		return "not established", nil, nil
	}
	return "", nil, nil
}

func deploymentState(d *appsv1.Deployment) string {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	switch s := d.Status; {
	case s.ObservedGeneration < d.Generation:
		return "not looked at by its controller"
	case s.UpdatedReplicas < want:
		return fmt.Sprintf("%d of %d pods are of the new version%s", s.UpdatedReplicas, want, replicaFailure(d))
	case s.Replicas > s.UpdatedReplicas:
		return fmt.Sprintf("%d pods of the old version are to end", s.Replicas-s.UpdatedReplicas)
	case s.AvailableReplicas < want:
		return fmt.Sprintf("%d of %d pods are ready", s.AvailableReplicas, want)
	}
	return ""
}

// replicaFailure says why no pods come to be: a quota, an admission webhook, a missing account.
func replicaFailure(d *appsv1.Deployment) string {
	for _, condition := range d.Status.Conditions {
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			return ": " + condition.Message
		}
	}
	return ""
}

func daemonSetState(d *appsv1.DaemonSet) string {
	switch s := d.Status; {
	case s.ObservedGeneration < d.Generation:
		return "not looked at by its controller"
	case s.UpdatedNumberScheduled < s.DesiredNumberScheduled:
		return fmt.Sprintf("%d of %d nodes have the new version", s.UpdatedNumberScheduled, s.DesiredNumberScheduled)
	case s.NumberAvailable < s.DesiredNumberScheduled:
		return fmt.Sprintf("ready on %d of %d nodes", s.NumberAvailable, s.DesiredNumberScheduled)
	}
	return ""
}

// podReasons says why pods are not ready, each reason once.
func (c *Cluster) podReasons(ctx context.Context, namespace string, selector *metav1.LabelSelector) ([]string, error) {
	matching, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || matching.Empty() {
		return nil, err
	}
	items, err := c.list(ctx, pods(), namespace, matching.String())
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range items {
		pod := &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(items[i].Object, pod); err != nil {
			return nil, err
		}
		if why := podReason(pod); why != "" && !slices.Contains(out, why) {
			out = append(out, why)
		}
	}
	slices.Sort(out)
	return out, nil
}

// podReason says why a pod is not ready, without its name: those of one workload mostly have one reason.
func podReason(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return ""
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch w, last := status.State.Waiting, status.LastTerminationState.Terminated; {
		case w != nil && last != nil && w.Reason == "CrashLoopBackOff":
			return fmt.Sprintf("container %s ended with exit code %d (%s) and waits to be started again%s: kubectl logs -n %s %s -c %s --previous",
				status.Name, last.ExitCode, last.Reason, text(last.Message), pod.Namespace, pod.Name, status.Name)
		case w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing":
			return fmt.Sprintf("container %s: %s%s", status.Name, w.Reason, text(w.Message))
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return fmt.Sprintf("%s: %s", condition.Reason, condition.Message)
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.ContainersReady && condition.Status == corev1.ConditionFalse && pod.Status.Phase == corev1.PodRunning {
			return condition.Message
		}
	}
	return ""
}

func text(message string) string {
	if message == "" {
		return ""
	}
	return ": " + strings.TrimSpace(message)
}
