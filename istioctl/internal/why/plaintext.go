package why

import (
	"fmt"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// plaintext is the way of a client that is not in the mesh: the cluster's network picks a pod.
func (w *walk) plaintext() path {
	h := &Hop{Title: w.from.title + ", without the mesh"}
	if w.m.besidesSidecar(w.from.pod) {
		h.Title = w.from.title + ", taken as if it had no sidecar"
	}
	h.add("identity", "none", nil)
	if p := w.from.pod; p != nil {
		text, ref, _ := w.m.enrolment(p)
		h.add("enrolled", text, ref)
	} else {
		h.add("enrolled", "no: the client is nobody the mesh knows", nil)
	}
	if w.to.external {
		h.Next = "plain TCP"
		return h.end(Verdict{Outcome: Allowed, Reached: []string{w.to.title}, Cause: w.to.title + " and the client are both unknown to the mesh: it has no part in this connection"})
	}
	s := w.m.service(w.to.service)
	if s == nil {
		h.add("destination", fmt.Sprintf("%s:%d", w.to.title, w.to.port), nil)
		if w.to.workload == nil {
			h.Next = "plain TCP"
			return h.end(Verdict{Outcome: Allowed, Reached: []string{w.to.title}, Cause: w.to.title + " is not known to the mesh: it has no part in this connection"})
		}
		return w.toPod(h, w.to.workload, netip.AddrPortFrom(w.to.address, w.to.port))
	}
	h.add("destination", fmt.Sprintf("service %s, port %d", s.Key(), w.to.port), w.m.serviceRef(s, ""))
	if !w.hasPort(s) {
		return h.end(w.noPort(s))
	}
	if s.Binding.Waypoint != "" && w.from.pod != nil {
		h.add("waypoint", "passed by: only clients of the mesh go through waypoint "+s.Binding.Waypoint, w.bindingRef())
	}
	var branches []branch
	for _, c := range l4.Candidates(w.m.State, l4.Conn{SourceWorkload: w.anySource()}, w.to.service, w.to.port) {
		if !c.Eligible || len(branches) >= draws {
			continue
		}
		next := h.fork()
		if len(c.Workload.Addresses) == 0 {
			branches = append(branches, branch{1, w.hostname(next, c.Workload.Hostname, c.Port)})
			continue
		}
		w.endpointFact(next, w.to.service, c.Workload, c.Port)
		branches = append(branches, branch{1, w.toPod(next, c.Workload, netip.AddrPortFrom(c.Workload.Addresses[0], c.Port))})
	}
	if len(branches) == 0 {
		return h.end(w.empty(s, nil, "", w.atClient()))
	}
	return worst(branches)
}

// toPod connects to a pod in plaintext.
func (w *walk) toPod(h *Hop, local *l4.Workload, at netip.AddrPort) path {
	if v := w.blockedVerdict(h, end{w.from.pod, w.from.address}, end{w.m.podOf(local), at.Addr()}, at.Port(), 0); v != nil {
		return h.end(*v)
	}
	h.Next = "plain TCP to " + at.String()
	if gateway := w.gatewayOf(local); gateway != nil {
		return h.then(w.atGateway(*gateway, local, at.Port()))
	}
	if local.HBONE {
		return h.then(w.plain(local, at, arrival{address: w.from.address, pod: w.from.pod}))
	}
	return h.then(w.bare(local, at))
}
