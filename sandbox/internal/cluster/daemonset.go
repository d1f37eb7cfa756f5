package cluster

import (
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// daemonSets run one pod on each node.
func (c *Controllers) daemonSets() error {
	var problems []error
	for _, ds := range store.List[*appsv1.DaemonSet](c.store) {
		problems = append(problems, problem("DaemonSet", ds, c.daemonSet(ds)))
	}
	return errors.Join(problems...)
}

const revisionLabel = "controller-revision-hash"

// onNode is what a DaemonSet has on one node.
type onNode struct {
	name                  string
	current, old, leaving []*corev1.Pod // leaving are being ended
}

func (n *onNode) ready() bool { return len(n.current) > 0 && Ready(n.current[0]) }

// serves tells whether a pod of whatever template is ready.
func (n *onNode) serves() bool {
	for _, p := range n.old {
		if Ready(p) {
			return true
		}
	}
	return n.ready()
}

func (c *Controllers) daemonSet(ds *appsv1.DaemonSet) error {
	if err := checkSelector(ds.Spec.Selector, &ds.Spec.Template); err != nil {
		return err
	}
	hash, err := hashOf(&ds.Spec.Template)
	if err != nil {
		return err
	}
	surge := false
	if r := ds.Spec.UpdateStrategy.RollingUpdate; r != nil && r.MaxSurge != nil && r.MaxSurge.String() != "0" && r.MaxSurge.String() != "0%" {
		surge = true
	}
	nodes := c.onNodes(ds, hash, surge)
	create := func(node string) error {
		pod := newPod(ds.Name+"-"+c.suffix(), &ds.Spec.Template, controllerRef(ds, "apps/v1", "DaemonSet"), ds.Namespace, map[string]string{revisionLabel: hash})
		pod.Spec.NodeName = node
		return c.put(pod)
	}
	begun, ready := 0, 0 // nodes on which a new pod is on its way: one at a time
	for _, n := range nodes {
		if n.serves() {
			ready++
		}
		switch {
		case len(n.leaving) > 0: // its successor comes when it is gone
			begun++
		case len(n.current)+len(n.old) == 0:
			err = errors.Join(err, create(n.name))
			begun++
		case len(n.current) > 0 && !n.ready():
			begun++
		case len(n.current) > 0:
			err = errors.Join(err, c.stopAll(n.old))
		}
	}
	// Those that serve nobody are replaced first.
	for _, served := range []bool{false, true} {
		for _, n := range nodes {
			if begun > 0 || len(n.old) == 0 || len(n.current)+len(n.leaving) > 0 || n.serves() != served {
				continue
			}
			if begun++; surge {
				err = errors.Join(err, create(n.name))
			} else {
				err = errors.Join(err, c.stopAll(n.old))
			}
		}
	}
	return errors.Join(err, c.setStatus(keyOf("apps", "DaemonSet", ds), ds.UID, func(d *appsv1.DaemonSet) bool {
		changed := int(d.Status.NumberReady) != ready || int(d.Status.DesiredNumberScheduled) != len(c.nodes)
		d.Status.NumberReady, d.Status.DesiredNumberScheduled = int32(ready), int32(len(c.nodes))
		return changed
	}))
}

// onNodes sorts the pods of a DaemonSet. With a surge, what is being ended is in nobody's way.
func (c *Controllers) onNodes(ds *appsv1.DaemonSet, hash string, surge bool) []*onNode {
	var out []*onNode
	byName := map[string]*onNode{}
	for _, name := range c.nodes {
		n := &onNode{name: name}
		byName[name] = n
		out = append(out, n)
	}
	for _, p := range c.everyPodOf(ds.UID) {
		n, ok := byName[p.Spec.NodeName]
		switch {
		case !ok:
		case p.DeletionTimestamp != nil:
			if !surge {
				n.leaving = append(n.leaving, p)
			}
		case p.Labels[revisionLabel] == hash && !finished(p):
			n.current = append(n.current, p)
		default:
			n.old = append(n.old, p)
		}
	}
	return out
}

func (c *Controllers) stopAll(pods []*corev1.Pod) error {
	var problems []error
	for _, p := range pods {
		problems = append(problems, c.stop(p))
	}
	return errors.Join(problems...)
}
