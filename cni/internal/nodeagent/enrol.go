package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/cni/internal/zds"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// reconcile brings one pod to where it should be. Failures are logged once, and tried again by Run.
func (a *Agent) reconcile(uid string) {
	r, _, _ := a.find(uid)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Asked again: it may have changed while another one held the record.
	_, pod, want := a.find(uid)
	if r.removed || pod == nil {
		return // the plugin's DEL is about to come, or has
	}
	var err error
	switch {
	case want && !r.enrolled:
		a.cfg.Metrics.events.WithLabelValues("add").Inc()
		err = a.enrol(a.ctx, r, pod, false)
	case want && r.planned != plan.PodFromAnnotations(pod.Annotations):
		err = a.redirect(r, pod, false)
	case want && a.astray(r, pod):
		err = a.mark(a.ctx, r, pod, RedirectionEnabled)
	case !want && (r.enrolled || r.served || r.marked != "" || pod.Annotations[AnnotationRedirection] != "" && !r.markedLately()):
		a.cfg.Metrics.events.WithLabelValues("remove").Inc()
		err = a.unenrol(a.ctx, r, pod)
	}
	a.note(r, pod, err)
}

func (a *Agent) note(r *record, pod *corev1.Pod, err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if r.failures++; failure == "" || failure != r.failure {
		r.failures = 1
	}
	// After a start the proxy takes a moment to come back.
	if failure != "" && r.failures == 1+patience(err) {
		a.cfg.Log.Warn("pod not where it should be; trying again", "pod", quoted(pod), "error", err)
	}
	r.failure = failure
}

// patience is how often a failure may come again before it is worth a word.
func patience(err error) int {
	if errors.Is(err, zds.ErrNoProxy) {
		return 2
	}
	return 0
}

// enrol puts a pod into the mesh. The proxy listens, and has shown the pod's identity, before anything is redirected to it. A pod
// that is starting is known to nobody yet, and waits for this in its ADD: that it is under way need not be told. The record is
// locked.
func (a *Agent) enrol(ctx context.Context, r *record, pod *corev1.Pod, starting bool) error {
	// Written by an earlier agent; not what this one has just replaced, and is to come back through the source.
	enabled := pod.Annotations[AnnotationRedirection] == RedirectionEnabled && (r.marked == RedirectionEnabled || !r.markedLately())
	if !starting && !enabled {
		if err := a.mark(ctx, r, pod, RedirectionPending); err != nil {
			return err
		}
		a.noteOlder(r)
		a.leaveEarly(r)
	}
	if !r.served {
		if err := a.cfg.Proxy.Add(zds.Pod{
			UID: r.saved.UID, Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: accountOf(pod), Netns: r.netns,
		}); err != nil {
			return err
		}
		r.served = true
	}
	if !starting && !enabled {
		if err := a.probe(ctx, r, pod); err != nil {
			return err
		}
	}
	if err := a.changeHost(HostRules.Add, r); err != nil {
		return err
	}
	if err := a.redirect(r, pod, enabled); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	r.enrolled = true
	a.cfg.Log.Info("pod enrolled", "pod", quoted(pod), "uid", r.saved.UID)
	return a.mark(ctx, r, pod, RedirectionEnabled)
}

// redirect applies the rules, unless those of an earlier agent are to be kept.
func (a *Agent) redirect(r *record, pod *corev1.Pod, enabled bool) error {
	asked := plan.PodFromAnnotations(pod.Annotations)
	if _, problems := plan.Interfaces(pod.Annotations[plan.AnnotationReroute]); len(problems) > 0 {
		a.cfg.Log.Warn("annotation of a pod names interfaces that are left out", "pod", quoted(pod), "annotation", plan.AnnotationReroute, "problems", problems)
	}
	if enabled && a.cfg.KeepRules {
		differences, err := a.backend(r).Inspect(r.netns, plan.Rules{})
		if err == nil && len(differences) > 0 {
			r.planned = asked
			return nil // there are some
		}
	}
	rules := plan.Plan(asked, a.cfg.Redirect)
	err := a.backend(r).Apply(r.netns, rules)
	if err != nil && a.fallBack(r, pod, err) {
		err = a.backend(r).Apply(r.netns, rules)
	}
	if err != nil {
		return err
	}
	r.planned = asked
	if r.foreign.Swap(false) {
		a.cfg.Log.Info("redirection of another back end replaced", "pod", quoted(pod), "by", a.cfg.Backend.Name)
	}
	return nil
}

// backend is the pod's, or the node's with those that may have been there before it.
func (a *Agent) backend(r *record) redirect.Backend {
	if r.early.Load() {
		return a.cfg.Backend.Early
	}
	if r.foreign.Load() {
		return redirect.Switched{Backend: a.cfg.Backend.Backend, Before: a.cfg.Backend.Before}
	}
	return a.cfg.Backend.Backend
}

// probe asks the pod's tunnel on its first address.
func (a *Agent) probe(ctx context.Context, r *record, pod *corev1.Pod) error {
	if a.cfg.Probe == nil || len(r.saved.IPs) == 0 {
		return nil
	}
	if err := a.cfg.Probe(ctx, r.netns, r.saved.IPs[0], pod.Namespace, accountOf(pod)); err != nil {
		return fmt.Errorf("not redirected yet: %w", err)
	}
	return nil
}

// unenrol takes a running pod out of the mesh; its open connections go on. The record is locked.
func (a *Agent) unenrol(ctx context.Context, r *record, pod *corev1.Pod) error {
	if err := a.backend(r).Remove(r.netns); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	if err := a.mark(ctx, r, pod, ""); err != nil {
		return err
	}
	if err := a.changeHost(HostRules.Remove, r); err != nil {
		return err
	}
	if r.enrolled {
		select { // peers that have not heard yet still tunnel to it
		case <-time.After(convergence):
		case <-ctx.Done():
		}
	}
	if err := a.cfg.Proxy.Del(r.saved.UID); err != nil {
		a.cfg.Log.Warn("ztunnel was not told that a pod has left", "pod", quoted(pod), "error", err)
	}
	r.enrolled, r.served, r.looked = false, false, false
	a.leaveEarly(r)
	a.setOlder(r.saved.UID, nil)
	a.cfg.Log.Info("pod un-enrolled", "pod", quoted(pod), "uid", r.saved.UID)
	return nil
}

// Leave takes the redirection out of all pods and says so, for good: the mesh is being taken off the node, and its proxy with it.
// It goes on after failures. Nothing else of the agent may run any more.
func (a *Agent) Leave(ctx context.Context) error {
	var problems []error
	for _, uid := range a.uids() {
		r, pod, _ := a.find(uid)
		if r == nil {
			continue
		}
		r.mu.Lock()
		if err := a.backend(r).Remove(r.netns); err != nil {
			problems = append(problems, fmt.Errorf("take the redirection out of %s/%s: %w", r.saved.Namespace, r.saved.Name, err))
		}
		if pod != nil && (r.marked != "" || pod.Annotations[AnnotationRedirection] != "") {
			if err := a.mark(ctx, r, pod, ""); err != nil {
				problems = append(problems, err)
			}
		}
		r.mu.Unlock()
	}
	return errors.Join(problems...)
}

func (a *Agent) changeHost(change func(HostRules, []netip.Addr) error, r *record) error {
	a.host.Lock()
	defer a.host.Unlock()
	return change(a.cfg.Host, r.saved.IPs)
}

// astray tells whether an enrolled pod's annotation is not what it should be, although it has had the time.
func (a *Agent) astray(r *record, pod *corev1.Pod) bool {
	if r.marked != RedirectionEnabled {
		return true
	}
	return pod.Annotations[AnnotationRedirection] != RedirectionEnabled && !r.markedLately()
}

// mark writes the annotation that tells the control plane how to reach the pod; "" takes it away.
func (a *Agent) mark(ctx context.Context, r *record, pod *corev1.Pod, value string) error {
	if r.marked == value && (pod.Annotations[AnnotationRedirection] == value || r.markedLately()) {
		return nil
	}
	if pod.Annotations[AnnotationRedirection] == value && r.marked == "" && !r.markedLately() {
		r.marked, r.markedAt = value, time.Now()
		return nil // an earlier agent has written it
	}
	ctx, cancel := context.WithTimeout(ctx, podPatience)
	defer cancel()
	var to *string
	if value != "" {
		to = &value
	}
	if err := a.cfg.Annotator.Annotate(ctx, pod, AnnotationRedirection, to); err != nil {
		return fmt.Errorf("annotate: %w", err)
	}
	r.marked, r.markedAt = value, time.Now()
	return nil
}

// Taken records what a proxy said of a pod in its snapshot.
func (a *Agent) Taken(uid string, err error) {
	if err == nil {
		a.welcome(uid)
		return
	}
	a.work.Go(func() {
		if r, pod, _ := a.find(uid); r != nil && pod != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.enrolled, r.served = false, false // Run tries again
			a.note(r, pod, err)
		}
	})
}
