package nodeagent

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/cni/internal/discover"
	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
)

// discover makes records of running pods that have none but should: those that belong into the mesh, and those that an earlier
// agent has enrolled. Why a pod is not found is shown, and looked for again.
func (a *Agent) discover() {
	if a.cfg.Finder == nil {
		return
	}
	unknown := a.unknown()
	if len(unknown) == 0 {
		return
	}
	var list []discover.Wanted
	for uid, pod := range unknown {
		list = append(list, discover.Wanted{UID: uid, IPs: addressesOf(pod)})
	}
	found, problems := a.cfg.Finder.Find(list)
	for uid, f := range found {
		pod := unknown[uid]
		r, err := newRecord(savedPod{
			UID: uid, Name: pod.Name, Namespace: pod.Namespace, Netns: f.Path, Identity: f.Identity, IPs: addressesOf(pod),
		})
		if err != nil {
			problems[uid] = err // it has ended meanwhile
			continue
		}
		r.foreign.Store(pod.Annotations[AnnotationRedirection] != "") // whoever has enrolled it
		a.adopt(r)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid := range unknown {
		problem := ""
		if err := problems[uid]; err != nil {
			problem = err.Error()
		}
		if problem != "" && problem != a.missing[uid] {
			a.cfg.Log.Info("network namespace of a pod not found; trying again", "pod", quoted(unknown[uid]), "reason", problem)
		}
		if a.missing[uid] = problem; problem == "" {
			delete(a.missing, uid)
		}
	}
}

// unknown are the pods that run, should have a record and have none, by uid.
func (a *Agent) unknown() map[string]*corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]*corev1.Pod{}
	for _, pod := range a.pods {
		uid := string(pod.UID)
		if a.records[uid] == nil && runs(pod) && (pod.Annotations[AnnotationRedirection] != "" || a.wantedLocked(pod)) {
			out[uid] = pod
		}
	}
	return out
}

// runs tells whether a pod has a network of its own that is in use.
func runs(pod *corev1.Pod) bool {
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return !ended && !pod.Spec.HostNetwork && len(addressesOf(pod)) > 0
}

// adopt makes r the pod's record, unless the plugin has told of the pod meanwhile.
func (a *Agent) adopt(r *record) {
	a.mu.Lock()
	other := a.records[r.saved.UID]
	if other == nil {
		a.records[r.saved.UID] = r
	}
	a.mu.Unlock()
	if other != nil {
		r.netns.Close()
		return
	}
	a.cfg.Log.Info("found the network namespace of a running pod", "pod", r.saved.Namespace+"/"+r.saved.Name, "netns", r.saved.Identity.String())
	if err := a.save(); err != nil {
		a.cfg.Log.Error("the node's pods are not saved", "error", err)
	}
}

// forgetOrphans lets go of pods that have neither an object nor a network any more: the plugin's DEL went to nobody.
func (a *Agent) forgetOrphans() {
	for _, uid := range a.uids() {
		r, pod, _ := a.find(uid)
		if r == nil {
			continue
		}
		r.mu.Lock()
		switch {
		case r.removed:
		case pod != nil:
			r.orphanSince = time.Time{}
		case r.orphanSince.IsZero():
			r.orphanSince = time.Now()
		case time.Since(r.orphanSince) > orphanPatience && !stillThere(r.saved):
			r.removed = true
			a.cfg.Log.Info("a pod has gone without a word of the CNI plugin", "pod", r.saved.Namespace+"/"+r.saved.Name)
			a.forget(r)
		}
		r.mu.Unlock()
	}
}

// stillThere tells whether the pod's network namespace is where it was.
func stillThere(p savedPod) bool {
	file, err := netns.Open(p.Netns)
	if err != nil {
		return false
	}
	defer file.Close()
	id, err := netns.Identify(file)
	return err == nil && id == p.Identity
}
