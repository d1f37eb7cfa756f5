package nodeagent

import (
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
)

// noteOlder keeps which connections a pod has before it is enrolled, the first time. The record is locked.
func (a *Agent) noteOlder(r *record) {
	if r.looked {
		return
	}
	list, err := sockets.Established(r.netns)
	if err != nil {
		a.cfg.Log.Warn("connections older than the enrolment are not known", "pod", r.saved.Namespace+"/"+r.saved.Name, "error", err)
		return
	}
	r.looked = true
	a.setOlder(r.saved.UID, list)
}

func (a *Agent) setOlder(uid string, list []sockets.Connection) {
	a.mu.Lock()
	before := len(a.older[uid])
	if len(list) == 0 {
		delete(a.older, uid)
	} else {
		a.older[uid] = list
	}
	a.mu.Unlock()
	if before == len(list) {
		return
	}
	if err := a.save(); err != nil {
		a.cfg.Log.Error("the node's pods are not saved", "error", err)
	}
}

func (a *Agent) olderOf(uid string) []sockets.Connection {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.older[uid]
}

func (a *Agent) olderCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, list := range a.older {
		n += len(list)
	}
	return n
}

// lookAfterOlder drops older connections that have ended, and cuts those into pods that take mutual TLS only: a plaintext
// connection that was there before the rule must not outlive it.
func (a *Agent) lookAfterOlder() {
	for _, uid := range a.uids() {
		list := a.olderOf(uid)
		r, pod, want := a.find(uid)
		if len(list) == 0 || r == nil || pod == nil || !want {
			continue
		}
		r.mu.Lock()
		if r.removed || !r.enrolled {
			r.mu.Unlock()
			continue
		}
		alive, err := sockets.Established(r.netns)
		if err == nil {
			list = slices.DeleteFunc(slices.Clone(list), func(c sockets.Connection) bool {
				return !slices.ContainsFunc(alive, func(o sockets.Connection) bool { return o.Cookie == c.Cookie })
			})
			policies := a.peerAuthentications()
			list = slices.DeleteFunc(list, func(c sockets.Connection) bool {
				return c.Inbound && strict(policies, a.cfg.RootNamespace, pod, c.Local.Port()) && a.cut(r, c)
			})
			a.setOlder(uid, list)
		}
		r.mu.Unlock()
	}
}

// cut ends a connection and tells whether it did.
func (a *Agent) cut(r *record, c sockets.Connection) bool {
	name := r.saved.Namespace + "/" + r.saved.Name
	if err := sockets.Cut(r.netns, c); err != nil {
		if !r.cutFailed {
			a.cfg.Log.Warn("a plaintext connection older than the enrolment goes on although STRICT forbids it: restart the pod", "pod", name, "peer", c.Remote, "error", err)
		}
		r.cutFailed = true
		return false
	}
	a.cfg.Metrics.cut.Inc()
	a.cfg.Log.Info("plaintext connection older than the enrolment cut: STRICT", "pod", name, "peer", c.Remote, "port", c.Local.Port())
	return true
}

func (a *Agent) peerAuthentications() []*securityv1.PeerAuthentication {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*securityv1.PeerAuthentication
	for _, p := range a.policies {
		out = append(out, p)
	}
	return out
}
