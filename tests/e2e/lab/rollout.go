package lab

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Workload names a Deployment or DaemonSet.
type Workload struct{ Kind, Namespace, Name string }

func (w Workload) String() string { return fmt.Sprintf("%s %s/%s", w.Kind, w.Namespace, w.Name) }

// Istiod is the control plane.
func Istiod() Workload { return Workload{"Deployment", SystemNamespace, "istiod"} }

// Ztunnel are the node proxies.
func Ztunnel() Workload { return Workload{"DaemonSet", SystemNamespace, "ztunnel"} }

// CNI are the node agents.
func CNI() Workload { return Workload{"DaemonSet", SystemNamespace, "istio-cni-node"} }

// Deployment names a Deployment.
func Deployment(namespace, name string) Workload { return Workload{"Deployment", namespace, name} }

// WaitRollout waits until all pods of a workload are of its present template, and available.
func (c *Cluster) WaitRollout(ctx context.Context, workloads ...Workload) error {
	for _, w := range workloads {
		if err := Eventually(ctx, w.String()+" is rolled out", func(ctx context.Context) error { return c.rolledOut(ctx, w) }); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) rolledOut(ctx context.Context, w Workload) error {
	var generation, observed int64
	var want, updated, available, total int32
	if w.Kind == "DaemonSet" {
		d, err := c.Client.AppsV1().DaemonSets(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := d.Status
		generation, observed, want, updated, available, total = d.Generation, s.ObservedGeneration, s.DesiredNumberScheduled, s.UpdatedNumberScheduled, s.NumberAvailable, s.CurrentNumberScheduled
		if want == 0 {
			want = 1 // it has not been scheduled yet
		}
	} else {
		d, err := c.Client.AppsV1().Deployments(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		want = 1
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		s := d.Status
		generation, observed, updated, available, total = d.Generation, s.ObservedGeneration, s.UpdatedReplicas, s.AvailableReplicas, s.Replicas
	}
	if observed < generation || updated < want || available < want || total > want {
		return fmt.Errorf("generation %d of %d seen, %d of %d pods are new, %d available, %d in all", observed, generation, updated, want, available, total)
	}
	return nil
}

// Restart replaces the pods of a workload, as `kubectl rollout restart` does, and waits for the new ones.
func (c *Cluster) Restart(ctx context.Context, w Workload) error {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	if err := c.patch(ctx, w, patch); err != nil {
		return err
	}
	return c.WaitRollout(ctx, w)
}

// Scale sets the number of a Deployment's pods and waits for them.
func (c *Cluster) Scale(ctx context.Context, w Workload, replicas int) error {
	if err := c.patch(ctx, w, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)); err != nil {
		return err
	}
	return c.WaitRollout(ctx, w)
}

func (c *Cluster) patch(ctx context.Context, w Workload, patch []byte) error {
	var err error
	if w.Kind == "DaemonSet" {
		_, err = c.Client.AppsV1().DaemonSets(w.Namespace).Patch(ctx, w.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	} else {
		_, err = c.Client.AppsV1().Deployments(w.Namespace).Patch(ctx, w.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("change %s: %w", w, err)
	}
	return nil
}
