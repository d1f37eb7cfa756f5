package nodeagent

import (
	"errors"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/cni/redirect"
)

// A pod that is enrolled before it starts may get another back end than one that runs (redirect.Chosen.Early). This file is what is
// different for it.

// fallBack gives a pod the node's usual back end and tells whether there was another one to fall back from. A pod that is enrolled
// stays where it is while its proxy is away. The record is locked.
func (a *Agent) fallBack(r *record, pod *corev1.Pod, reason error) bool {
	if !r.early.Load() || r.enrolled && errors.Is(reason, redirect.ErrNoListener) {
		return false
	}
	a.leaveEarly(r)
	a.cfg.Metrics.fallbacks.WithLabelValues(redirect.Reason(reason)).Inc()
	tell := a.cfg.Log.Warn
	if errors.Is(reason, redirect.ErrUnsuitable) { // which is how the pod is meant to be
		tell = a.cfg.Log.Info
	}
	tell("redirection by "+a.cfg.Backend.Name+" instead of "+a.cfg.Backend.EarlyName, "pod", quoted(pod), "reason", reason)
	return true
}

// leaveEarly makes the usual back end the pod's; it clears what the other one has left when it comes to its rules. The record is
// locked.
func (a *Agent) leaveEarly(r *record) {
	if !r.early.Swap(false) {
		return
	}
	r.foreign.Store(true)
	if err := a.save(); err != nil {
		a.cfg.Log.Error("the node's pods are not saved", "error", err)
	}
}

// forgetEarly takes what is kept of a pod that is gone, whoever redirects it now. The record is locked.
func (a *Agent) forgetEarly(r *record) {
	if a.cfg.Backend.Early == nil {
		return
	}
	if err := a.cfg.Backend.Early.Forget(r.netns); err != nil {
		a.cfg.Log.Warn("something of a pod that is gone is left in the kernel", "uid", r.saved.UID, "error", err)
	}
}

// welcome redirects to a proxy that has just taken the pod: its listeners are others than those of the proxy before.
func (a *Agent) welcome(uid string) {
	r, _, _ := a.find(uid)
	if r == nil || !r.early.Load() {
		return
	}
	a.work.Go(func() {
		r, pod, want := a.find(uid)
		if r == nil || pod == nil || !want {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.enrolled && !r.removed && r.early.Load() {
			a.note(r, pod, a.redirect(r, pod, false))
		}
	})
}

// redirection is the name of the back end that a pod has. The record is locked.
func (a *Agent) redirection(r *record) string {
	switch {
	case !r.enrolled:
		return ""
	case r.early.Load():
		return a.cfg.Backend.EarlyName
	}
	return a.cfg.Backend.Name
}
