package nodeagent

import (
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// inspect repairs the rules of enrolled pods that somebody has changed. Rules of an earlier agent that are to be kept are left
// alone: they may have been planned otherwise.
func (a *Agent) inspect() {
	if a.cfg.KeepRules {
		return
	}
	for _, uid := range a.uids() {
		r, pod, want := a.find(uid)
		if r == nil || pod == nil || !want {
			continue
		}
		r.mu.Lock()
		if r.enrolled && !r.removed {
			differences, err := a.backend(r).Inspect(r.netns, plan.Plan(r.planned, a.cfg.Redirect))
			if err == nil && len(differences) > 0 {
				a.cfg.Log.Warn("somebody has changed the redirection of a pod; it is written anew", "pod", quoted(pod), "differences", differences)
				err = a.redirect(r, pod, false)
			}
			a.note(r, pod, err)
		}
		r.mu.Unlock()
	}
}
