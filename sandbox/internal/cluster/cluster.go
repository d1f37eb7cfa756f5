// Package cluster is the sandbox's controllers: they turn Deployments, StatefulSets and DaemonSets into pods, place these on
// nodes, give Services their addresses, and list the endpoints. They act on the store only, and only when asked to.
//
// A pod is taken away by setting its deletionTimestamp; whoever runs it removes the object in the end.
package cluster

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// maxRounds bounds one Reconcile; each round acts on what the one before has written.
const maxRounds = 20

// Controllers act on a store. Not safe for concurrent use.
type Controllers struct {
	store *store.Store
	nodes []string
	now   func() time.Time
	// suffix makes the random part of names.
	suffix func() string
	more   []Part
	writes int
}

// Part is a further controller, of the same store. It says whether it has written to it.
type Part interface {
	Reconcile() (wrote bool, err error)
}

// New returns controllers for the nodes of the given names. The parts act before the others.
func New(s *store.Store, nodes []string, suffix func() string, more ...Part) *Controllers {
	return &Controllers{store: s, nodes: nodes, now: time.Now, suffix: suffix, more: more}
}

// Reconcile brings the store to where nothing is left to do. What is wrong with one object keeps no other from its place;
// all of it is returned.
func (c *Controllers) Reconcile() error {
	var problems error
	for range maxRounds {
		before := c.writes
		problems = errors.Join(c.namespaces(), c.parts(), c.collectGarbage(), c.deployments(), c.replicaSets(), c.statefulSets(), c.daemonSets(),
			c.schedule(), c.services(), c.endpoints())
		if c.writes == before {
			return problems
		}
	}
	return errors.Join(problems, errors.New("the controllers do not come to rest"))
}

func (c *Controllers) parts() error {
	var problems []error
	for _, p := range c.more {
		wrote, err := p.Reconcile()
		if wrote {
			c.writes++
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func (c *Controllers) put(obj manifest.Object) error {
	c.writes++
	return c.store.Put(obj)
}

// keyOf names an object of a typed kind.
func keyOf(group, kind string, obj metav1.Object) store.Key {
	return store.Key{Group: group, Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

func problem(kind string, obj metav1.Object, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", kind, strings.TrimPrefix(obj.GetNamespace()+"/"+obj.GetName(), "/"), err)
}

// namespaces labels every namespace with its name, and gives it its default service account.
func (c *Controllers) namespaces() error {
	const nameLabel = "kubernetes.io/metadata.name"
	var problems []error
	for _, ns := range store.List[*corev1.Namespace](c.store) {
		if ns.Labels[nameLabel] != ns.Name {
			c.writes++
			problems = append(problems, store.Modify(c.store, keyOf("", "Namespace", ns), ns.UID, func(n *corev1.Namespace) {
				metav1.SetMetaDataLabel(&n.ObjectMeta, nameLabel, n.Name)
			}))
		}
		account := store.Key{Kind: "ServiceAccount", Namespace: ns.Name, Name: "default"}
		if _, ok := c.store.Get(account); !ok {
			problems = append(problems, c.put(&corev1.ServiceAccount{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "default"},
			}))
		}
	}
	return errors.Join(problems...)
}

// collectGarbage takes away what belongs to an object that is gone.
func (c *Controllers) collectGarbage() error {
	alive := map[types.UID]bool{}
	all := c.store.All()
	for _, obj := range all {
		alive[obj.GetUID()] = true
	}
	var problems []error
	for _, obj := range all {
		owner := metav1.GetControllerOf(obj)
		if owner == nil || alive[owner.UID] {
			continue
		}
		if pod, ok := obj.(*corev1.Pod); ok {
			problems = append(problems, c.stop(pod))
			continue
		}
		c.writes++
		_, err := c.store.Delete(store.KeyOf(obj))
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// stop asks for the end of a pod.
func (c *Controllers) stop(pod *corev1.Pod) error {
	if pod.DeletionTimestamp != nil {
		return nil
	}
	c.writes++
	return StopPod(c.store, pod, c.now())
}

// StopPod marks a pod as to be ended. One that is on no node yet is removed at once.
func StopPod(s *store.Store, pod *corev1.Pod, now time.Time) error {
	key := keyOf("", "Pod", pod)
	if pod.Spec.NodeName == "" {
		_, err := s.Delete(key)
		return err
	}
	grace := int64(30)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	return store.Modify(s, key, pod.UID, func(p *corev1.Pod) {
		if p.DeletionTimestamp == nil {
			end := metav1.NewTime(now.Add(time.Duration(grace) * time.Second))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &end, &grace
		}
	})
}

// podsOf lists the pods that an object controls and that are not being ended, by name.
func (c *Controllers) podsOf(uid types.UID) []*corev1.Pod {
	return slices.DeleteFunc(c.everyPodOf(uid), func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// everyPodOf lists the pods that an object controls, with those that are being ended, by name.
func (c *Controllers) everyPodOf(uid types.UID) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range store.List[*corev1.Pod](c.store) {
		if owner := metav1.GetControllerOf(p); owner != nil && owner.UID == uid {
			out = append(out, p)
		}
	}
	return out
}

// Ready tells whether a pod is.
func Ready(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// finished tells whether a pod has ended for good.
func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// newPod makes a pod of a template.
func newPod(name string, template *corev1.PodTemplateSpec, owner metav1.OwnerReference, namespace string, more map[string]string) *corev1.Pod {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Name, pod.Namespace, pod.OwnerReferences = name, namespace, []metav1.OwnerReference{owner}
	pod.CreationTimestamp = metav1.Time{}
	for key, value := range more {
		metav1.SetMetaDataLabel(&pod.ObjectMeta, key, value)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	pod.Status.Phase = corev1.PodPending
	return pod
}

func controllerRef(obj metav1.Object, apiVersion, kind string) metav1.OwnerReference {
	yes := true
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: obj.GetName(), UID: obj.GetUID(), Controller: &yes, BlockOwnerDeletion: &yes}
}

// hashOf tells templates apart.
func hashOf(template *corev1.PodTemplateSpec) (string, error) {
	text, err := yaml.Marshal(template)
	if err != nil {
		return "", err
	}
	h := fnv.New32a()
	h.Write(text)
	return strconv.FormatUint(uint64(h.Sum32()), 36), nil
}

// checkSelector refuses what would make pods without end.
func checkSelector(selector *metav1.LabelSelector, template *corev1.PodTemplateSpec) error {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return fmt.Errorf("spec.selector: %w", err)
	}
	if s.Empty() || !s.Matches(labels.Set(template.Labels)) {
		return errors.New("spec.selector does not match spec.template.metadata.labels")
	}
	return nil
}

func replicasOf(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

// oldestLast orders pods so that the ones to keep come first: those that are ready, then the older ones.
func oldestLast(pods []*corev1.Pod) {
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		if Ready(a) != Ready(b) {
			if Ready(a) {
				return -1
			}
			return 1
		}
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
}

// setStatus writes a status only if it changes something.
func (c *Controllers) setStatus(key store.Key, uid types.UID, change any) error {
	switch change := change.(type) {
	case func(*appsv1.DaemonSet) bool:
		return setStatus(c, key, uid, change)
	case func(*appsv1.Deployment) bool:
		return setStatus(c, key, uid, change)
	case func(*appsv1.StatefulSet) bool:
		return setStatus(c, key, uid, change)
	}
	return fmt.Errorf("status of %s: unknown kind", key.Kind)
}

func setStatus[T manifest.Object](c *Controllers, key store.Key, uid types.UID, change func(T) bool) error {
	old, ok := c.store.Get(key)
	if !ok {
		return nil
	}
	trial, ok := old.DeepCopyObject().(T)
	if !ok || !change(trial) {
		return nil
	}
	c.writes++
	return store.Modify(c.store, key, uid, func(obj T) { change(obj) })
}

// statefulSets run pods with names that stay.
func (c *Controllers) statefulSets() error {
	var problems []error
	for _, set := range store.List[*appsv1.StatefulSet](c.store) {
		problems = append(problems, problem("StatefulSet", set, c.statefulSet(set)))
	}
	return errors.Join(problems...)
}

func (c *Controllers) statefulSet(set *appsv1.StatefulSet) error {
	if err := checkSelector(set.Spec.Selector, &set.Spec.Template); err != nil {
		return err
	}
	hash, err := hashOf(&set.Spec.Template)
	if err != nil {
		return err
	}
	want, ready := replicasOf(set.Spec.Replicas), 0
	byName := map[string]*corev1.Pod{}
	for _, p := range store.List[*corev1.Pod](c.store) {
		if owner := metav1.GetControllerOf(p); owner != nil && owner.UID == set.UID {
			byName[p.Name] = p
		}
	}
	for i := range want {
		name := fmt.Sprintf("%s-%d", set.Name, i)
		p, ok := byName[name]
		delete(byName, name)
		switch {
		case !ok:
			pod := newPod(name, &set.Spec.Template, controllerRef(set, "apps/v1", "StatefulSet"), set.Namespace, map[string]string{
				revisionLabel: hash, "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": strconv.Itoa(i),
			})
			pod.Spec.Hostname, pod.Spec.Subdomain = name, set.Spec.ServiceName
			err = errors.Join(err, c.put(pod))
		case p.DeletionTimestamp != nil:
		case p.Labels[revisionLabel] != hash || finished(p):
			err = errors.Join(err, c.stop(p))
		case Ready(p):
			ready++
			continue
		}
		if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
			break // one after the other
		}
	}
	for name, p := range byName {
		if index, convErr := strconv.Atoi(strings.TrimPrefix(name, set.Name+"-")); convErr != nil || index >= want {
			err = errors.Join(err, c.stop(p))
		}
	}
	return errors.Join(err, c.setStatus(keyOf("apps", "StatefulSet", set), set.UID, func(s *appsv1.StatefulSet) bool {
		changed := int(s.Status.ReadyReplicas) != ready || int(s.Status.Replicas) != want
		s.Status.ReadyReplicas, s.Status.Replicas = int32(ready), int32(want)
		return changed
	}))
}
