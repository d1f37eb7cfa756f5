package cluster

import (
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

const templateHashLabel = "pod-template-hash"

// deployments keep one ReplicaSet per template, and move the replicas to the newest.
func (c *Controllers) deployments() error {
	var problems []error
	for _, d := range store.List[*appsv1.Deployment](c.store) {
		problems = append(problems, problem("Deployment", d, c.deployment(d)))
	}
	return errors.Join(problems...)
}

func (c *Controllers) deployment(d *appsv1.Deployment) error {
	if err := checkSelector(d.Spec.Selector, &d.Spec.Template); err != nil {
		return err
	}
	hash, err := hashOf(&d.Spec.Template)
	if err != nil {
		return err
	}
	var current *appsv1.ReplicaSet
	var old []*appsv1.ReplicaSet
	for _, rs := range store.List[*appsv1.ReplicaSet](c.store) {
		owner := metav1.GetControllerOf(rs)
		switch {
		case owner == nil || owner.UID != d.UID:
		case rs.Labels[templateHashLabel] == hash:
			current = rs
		default:
			old = append(old, rs)
		}
	}
	want := replicasOf(d.Spec.Replicas)
	if current == nil {
		return c.put(newReplicaSet(d, hash, 0))
	}
	currentReady, oldPods := 0, 0
	for _, p := range c.podsOf(current.UID) {
		if Ready(p) {
			currentReady++
		}
	}
	for _, rs := range old {
		oldPods += len(c.podsOf(rs.UID))
	}
	// One more pod than wanted at the most; an old one goes only when a new one is ready.
	size := min(want, max(want+1-oldPods, replicasOf(current.Spec.Replicas)))
	if oldPods == 0 || d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		size = want
	}
	err = c.scale(current, size)
	keep := max(want-currentReady, 0)
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		keep = 0
	}
	for _, rs := range old {
		n := min(replicasOf(rs.Spec.Replicas), keep)
		keep -= n
		err = errors.Join(err, c.scale(rs, n))
		if n == 0 && len(c.podsOf(rs.UID)) == 0 {
			c.writes++
			_, deleteErr := c.store.Delete(keyOf("apps", "ReplicaSet", rs))
			err = errors.Join(err, deleteErr)
		}
	}
	total := int32(oldPods + len(c.podsOf(current.UID)))
	return errors.Join(err, c.setStatus(keyOf("apps", "Deployment", d), d.UID, func(d *appsv1.Deployment) bool {
		next := appsv1.DeploymentStatus{
			Replicas: total, UpdatedReplicas: total - int32(oldPods), ReadyReplicas: int32(currentReady), AvailableReplicas: int32(currentReady),
		}
		changed := d.Status.Replicas != next.Replicas || d.Status.UpdatedReplicas != next.UpdatedReplicas || d.Status.ReadyReplicas != next.ReadyReplicas
		d.Status = next
		return changed
	}))
}

func newReplicaSet(d *appsv1.Deployment, hash string, replicas int32) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, OwnerReferences: []metav1.OwnerReference{controllerRef(d, "apps/v1", "Deployment")},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: d.Spec.Selector.DeepCopy(), Template: *d.Spec.Template.DeepCopy()},
	}
	for key, value := range d.Spec.Template.Labels {
		metav1.SetMetaDataLabel(&rs.ObjectMeta, key, value)
	}
	metav1.SetMetaDataLabel(&rs.ObjectMeta, templateHashLabel, hash)
	metav1.SetMetaDataLabel(&rs.Spec.Template.ObjectMeta, templateHashLabel, hash)
	rs.Spec.Selector = metav1.AddLabelToSelector(rs.Spec.Selector, templateHashLabel, hash)
	return rs
}

func (c *Controllers) scale(rs *appsv1.ReplicaSet, size int) error {
	if replicasOf(rs.Spec.Replicas) == size {
		return nil
	}
	c.writes++
	n := int32(size)
	return store.Modify(c.store, keyOf("apps", "ReplicaSet", rs), rs.UID, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = &n })
}

// replicaSets keep as many pods as they are to have.
func (c *Controllers) replicaSets() error {
	var problems []error
	for _, rs := range store.List[*appsv1.ReplicaSet](c.store) {
		problems = append(problems, problem("ReplicaSet", rs, c.replicaSet(rs)))
	}
	return errors.Join(problems...)
}

func (c *Controllers) replicaSet(rs *appsv1.ReplicaSet) error {
	if err := checkSelector(rs.Spec.Selector, &rs.Spec.Template); err != nil {
		return err
	}
	var pods []*corev1.Pod
	for _, p := range c.podsOf(rs.UID) {
		if !finished(p) {
			pods = append(pods, p)
		}
	}
	want := replicasOf(rs.Spec.Replicas)
	var err error
	for range want - len(pods) {
		err = errors.Join(err, c.put(newPod(rs.Name+"-"+c.suffix(), &rs.Spec.Template, controllerRef(rs, "apps/v1", "ReplicaSet"), rs.Namespace, nil)))
	}
	if len(pods) > want {
		oldestLast(pods)
		for _, p := range pods[want:] {
			err = errors.Join(err, c.stop(p))
		}
	}
	return err
}

// schedule places pods on the nodes with the fewest.
func (c *Controllers) schedule() error {
	load := map[string]int{}
	pods := store.List[*corev1.Pod](c.store)
	for _, p := range pods {
		if owner := metav1.GetControllerOf(p); p.DeletionTimestamp == nil && (owner == nil || owner.Kind != "DaemonSet") {
			load[p.Spec.NodeName]++
		}
	}
	var problems []error
	for _, p := range pods {
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil {
			continue
		}
		node := ""
		for _, n := range c.nodes {
			if host, ok := p.Spec.NodeSelector["kubernetes.io/hostname"]; ok && host != n {
				continue
			}
			if node == "" || load[n] < load[node] {
				node = n
			}
		}
		if node == "" {
			problems = append(problems, problem("Pod", p, errors.New("spec.nodeSelector: no node fits")))
			continue
		}
		load[node]++
		c.writes++
		problems = append(problems, store.Modify(c.store, keyOf("", "Pod", p), p.UID, func(p *corev1.Pod) {
			p.Spec.NodeName = node
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
		}))
	}
	return errors.Join(problems...)
}
