package cluster

import (
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

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
	if current == nil {
		return c.put(newReplicaSet(d, hash, 0))
	}
	err = c.roll(d, current, old)
	pods, updated, ready := 0, len(c.podsOf(current.UID)), c.ready(current)
	for _, rs := range append(old, current) {
		pods += len(c.podsOf(rs.UID))
	}
	for _, rs := range old {
		ready += c.ready(rs)
	}
	return errors.Join(err, c.setStatus(keyOf("apps", "Deployment", d), d.UID, func(d *appsv1.Deployment) bool {
		next := appsv1.DeploymentStatus{
			Replicas: int32(pods), UpdatedReplicas: int32(updated), ReadyReplicas: int32(ready), AvailableReplicas: int32(ready),
		}
		changed := d.Status.Replicas != next.Replicas || d.Status.UpdatedReplicas != next.UpdatedReplicas || d.Status.ReadyReplicas != next.ReadyReplicas
		d.Status = next
		return changed
	}))
}

// ready counts the pods of a ReplicaSet that are.
func (c *Controllers) ready(rs *appsv1.ReplicaSet) (n int) {
	for _, p := range c.podsOf(rs.UID) {
		if Ready(p) {
			n++
		}
	}
	return n
}

// roll moves the replicas of a Deployment to its current ReplicaSet, as its strategy says.
func (c *Controllers) roll(d *appsv1.Deployment, current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) error {
	want := replicasOf(d.Spec.Replicas)
	oldPods, leaving, ready := 0, 0, c.ready(current)
	for _, rs := range old {
		pods := len(c.podsOf(rs.UID))
		oldPods += pods
		leaving += len(c.everyPodOf(rs.UID)) - pods
		ready += c.ready(rs)
	}
	recreate := d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	// One more pod than wanted at the most. To recreate is to have none of the old ones, nor one that is being ended.
	size := min(want, max(want+1-oldPods, replicasOf(current.Spec.Replicas)))
	switch {
	case recreate && oldPods+leaving > 0:
		size = 0
	case oldPods == 0:
		size = want
	}
	err := c.scale(current, size)
	// Of the old ones those go that serve nobody, and of the others as many as are not needed any more.
	spare := max(ready-want, 0)
	for _, rs := range old {
		keep := min(replicasOf(rs.Spec.Replicas), c.ready(rs))
		n := min(keep, spare)
		spare -= n
		if keep -= n; recreate {
			keep = 0
		}
		err = errors.Join(err, c.scale(rs, keep))
		if keep == 0 && len(c.everyPodOf(rs.UID)) == 0 {
			c.writes++
			_, deleteErr := c.store.Delete(keyOf("apps", "ReplicaSet", rs))
			err = errors.Join(err, deleteErr)
		}
	}
	return err
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

// fits tells whether a node has the labels that a selector names.
func (c *Controllers) fits(name string, selector map[string]string) bool {
	have := labels.Set{}
	if o, ok := c.store.Get(store.Key{Kind: "Node", Name: name}); ok {
		have = labels.Merge(have, o.GetLabels())
	}
	have["kubernetes.io/hostname"] = name
	return labels.SelectorFromSet(selector).Matches(have)
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
		if p.Spec.NodeName != "" && !slices.Contains(c.nodes, p.Spec.NodeName) {
			if p.DeletionTimestamp != nil { // nobody else takes it away
				c.writes++
				_, err := c.store.Delete(keyOf("", "Pod", p))
				problems = append(problems, err)
				continue
			}
			problems = append(problems, problem("Pod", p, fmt.Errorf("spec.nodeName: there is no node %q", p.Spec.NodeName)))
		}
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil {
			continue
		}
		node := ""
		for _, n := range c.nodes {
			if !c.fits(n, p.Spec.NodeSelector) {
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
