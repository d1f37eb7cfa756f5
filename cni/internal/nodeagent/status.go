package nodeagent

import (
	"cmp"
	"slices"

	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
)

// Status is one pod's, for people.
type Status struct {
	Pod      string `json:"pod"`
	UID      string `json:"uid"`
	Wanted   bool   `json:"wanted"`
	Enrolled bool   `json:"enrolled"`
	Netns    string `json:"netns,omitempty"`
	// Redirection is the name of the back end.
	Redirection string `json:"redirection,omitempty"`
	// Older are open connections that go past the mesh, for they are older than the enrolment.
	Older   []sockets.Connection `json:"olderConnections,omitempty"`
	Problem string               `json:"problem,omitempty"`
}

// Statuses lists the pods of the node that have a network, or should be in the mesh, by name.
func (a *Agent) Statuses() []Status {
	out := []Status{}
	for _, uid := range a.uids() {
		r, _, want := a.find(uid)
		if r == nil {
			continue
		}
		r.mu.Lock()
		out = append(out, Status{
			Pod: r.saved.Namespace + "/" + r.saved.Name, UID: uid, Wanted: want, Enrolled: r.enrolled, Netns: r.saved.Identity.String(),
			Redirection: a.redirection(r), Older: a.olderOf(uid), Problem: r.failure,
		})
		r.mu.Unlock()
	}
	for uid, pod := range a.unknown() {
		a.mu.Lock()
		problem, want := a.missing[uid], a.wantedLocked(pod)
		a.mu.Unlock()
		out = append(out, Status{Pod: pod.Namespace + "/" + pod.Name, UID: uid, Wanted: want, Problem: cmp.Or(problem, "its network namespace is not known")})
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Pod, b.Pod) })
	return out
}

// unenrolled counts the running pods that belong into the mesh and are not in it, as their peers see it.
func (a *Agent) unenrolled() int {
	n := 0
	for _, s := range a.Statuses() {
		if s.Wanted && (!s.Enrolled || s.Problem != "") {
			n++
		}
	}
	return n
}

// Enrolled tells whether a pod is in the mesh.
func (a *Agent) Enrolled(uid string) bool {
	r, _, want := a.find(uid)
	if r == nil || !want {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.enrolled
}
