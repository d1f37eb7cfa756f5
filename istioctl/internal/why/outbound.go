package why

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// draws is how often a choice that is left to chance is asked: enough to see all that may come of it.
const draws = 100

// branch is a way that a share of connections or requests takes.
type branch struct {
	count int
	path
}

// rank orders outcomes, the worst last: what is broken for sure is worse than what is not known.
func rank(outcome string) int {
	if outcome == Broken {
		return Code(Broken) + 1
	}
	return Code(outcome)
}

// worst is the way of those that fare worst; shares are told when others fare otherwise.
func worst(branches []branch) path {
	total, at := 0, 0
	for i, b := range branches {
		total += b.count
		if rank(b.verdict.Outcome) > rank(branches[at].verdict.Outcome) {
			at = i
		}
	}
	out := branches[at].path
	percent := 0 // of all, the count of each branch times its own share
	var reached []string
	for _, b := range branches {
		if b.verdict.Outcome == out.verdict.Outcome {
			percent += b.count * cmp.Or(b.verdict.Share, 100)
		}
		for _, r := range b.verdict.Reached {
			reached = addOnce(reached, r)
		}
	}
	if percent < total*100 {
		out.verdict.Share = max(1, percent/total)
	} else {
		out.verdict.Share = 0
	}
	out.verdict.Reached = reached
	return out
}

func addOnce(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// outbound asks the ztunnel of the source.
func (w *walk) outbound() path {
	h := &Hop{Title: "ztunnel" + where(w.from.workload) + ", for " + w.from.title, proxy: passed{node: w.from.workload.Node}}
	w.sourceFacts(h)
	if w.to.external {
		return w.external(h)
	}
	addresses, v := w.addresses(h)
	if v != nil {
		return h.end(*v)
	}
	type way struct {
		route l4.Route
		err   error
		count int
	}
	ways := map[string]*way{}
	var order []string
	for _, address := range addresses {
		for j := range uint64(draws) {
			dst := netip.AddrPortFrom(address, w.to.port)
			r, err := l4.Decide(w.m.State, l4.Conn{
				SourceWorkload: w.from.workload, Source: netip.AddrPortFrom(w.from.address, 40000), Dst: dst,
				Rand: func(n uint64) uint64 { return j * n / draws },
			})
			k := fmt.Sprint(r.Target, r.Hostname, err)
			if ways[k] == nil {
				ways[k] = &way{route: r, err: err}
				order = append(order, k)
			}
			ways[k].count++
		}
	}
	var branches []branch
	for _, k := range order {
		next := h.fork()
		branches = append(branches, branch{ways[k].count, w.follow(next, ways[k].route, ways[k].err)})
	}
	return worst(branches)
}

func (w *walk) sourceFacts(h *Hop) {
	h.add("identity", principal(w.from.identity), nil)
	if w.q.Identity != "" {
		w.from.workload = as(w.from.workload, w.from)
		h.Facts[0].Text += " (by --identity)"
	}
	if p := w.from.pod; p != nil {
		text, ref, _ := w.m.enrolment(p)
		h.add("enrolled", text, ref)
	}
}

// as is the workload with another identity.
func as(have *l4.Workload, s *source) *l4.Workload {
	other := *have
	other.Namespace, other.ServiceAccount, other.TrustDomain = s.identity.Namespace, s.identity.ServiceAccount, s.identity.TrustDomain
	return &other
}

// external is a name that the mesh does not know.
func (w *walk) external(h *Hop) path {
	h.add("destination", w.to.title+" is no service, pod or ServiceEntry of the mesh", nil)
	h.Next = "plain TCP to whatever address DNS has for it"
	return h.end(Verdict{
		Outcome: Allowed, Reached: []string{w.to.title},
		Cause:  fmt.Sprintf("%s is not known to the mesh: ztunnel passes the connection on as it is, and no policy is asked", w.to.title),
		Remedy: "a ServiceEntry makes it known, with names, policies and telemetry",
	})
}

// addresses are those that the name of the destination resolves to.
func (w *walk) addresses(h *Hop) ([]netip.Addr, *Verdict) {
	s := w.m.service(w.to.service)
	if s == nil {
		h.add("destination", w.to.title+":"+fmt.Sprint(w.to.port), nil)
		return []netip.Addr{w.to.address}, nil
	}
	h.add("destination", fmt.Sprintf("service %s, port %d", s.Key(), w.to.port), w.m.serviceRef(s, ""))
	if !w.hasPort(s) {
		v := w.noPort(s)
		return nil, &v
	}
	if w.to.address.IsValid() {
		return []netip.Addr{w.to.address}, nil
	}
	var out []netip.Addr
	for _, c := range l4.Candidates(w.m.State, l4.Conn{SourceWorkload: w.anySource()}, w.to.service, w.to.port) {
		if c.Eligible && len(c.Workload.Addresses) > 0 && len(out) < draws {
			out = append(out, c.Workload.Addresses[0])
		}
	}
	if len(out) > 0 {
		h.add("address", "the service has none of its own (headless): DNS answers those of its pods", nil)
		return out, nil
	}
	v := w.empty(s, nil, "", w.atClient())
	if s.Entry != "" && len(s.Proto.Addresses) == 0 {
		v = broken("give it spec.addresses, or a resolution other than NONE and hosts without a wildcard, so that one is allocated",
			"ServiceEntry %s has no address for %s, so that nothing leads ztunnel to it", s.Entry, s.Proto.Hostname).
			about(w.m.serviceRef(s, "spec.resolution"))
	}
	return nil, &v
}

// anySource stands for the source in choices of endpoints where there is none.
func (w *walk) anySource() *l4.Workload {
	if w.from.workload != nil {
		return w.from.workload
	}
	return &l4.Workload{UID: "outside", Network: w.m.Mesh.Settings().Network}
}

// follow goes where a route of the source's ztunnel leads.
func (w *walk) follow(h *Hop, r l4.Route, err error) path {
	if err != nil {
		return h.end(w.refusal(h, err))
	}
	var to end
	if r.Destination != nil {
		to = end{w.m.podOf(r.Destination), r.Target.Addr()}
	} else {
		to = end{nil, r.Target.Addr()}
	}
	plain := r.Inner.Port()
	if v := w.blockedVerdict(h, end{w.from.pod, w.from.address}, to, r.Target.Port(), plain); v != nil {
		return h.end(*v)
	}
	switch r.Kind {
	case l4.Passthrough:
		h.add("way", "plain TCP to "+r.Target.String()+", which no workload of the mesh has", nil)
		h.Next = "plain TCP"
		return h.end(Verdict{Outcome: Allowed, Reached: []string{r.Target.String()}, Cause: r.Target.String() + " is not known to the mesh: ztunnel passes the connection on as it is"})
	case l4.ServiceWaypoint, l4.WorkloadWaypoint:
		return w.toWaypoint(h, r)
	case l4.Direct:
	}
	if r.Hostname != "" {
		return w.hostname(h, r.Hostname, r.Inner.Port())
	}
	w.endpointFact(h, r.Service, r.Destination, r.Inner.Port())
	if r.HBONE {
		h.add("protocol", "HBONE (mutual TLS), to "+r.Target.String(), nil)
		h.Next = "HBONE to " + r.Target.String()
		return h.then(w.tunnel(r.Destination, r.Inner, r.Authority, arrival{w.from.address, w.from.identity, w.from.pod}))
	}
	text, ref := "the destination is not enrolled", w.m.workloadRef(r.Destination, "")
	if r.Destination.UID == w.from.workload.UID {
		text = "the pod reaches itself"
	} else if p := w.m.podOf(r.Destination); p != nil {
		text, ref, _ = w.m.enrolment(p)
		text = "the destination's enrolment: " + text
	}
	h.add("protocol", "plain TCP: "+text, ref)
	h.Next = "plain TCP to " + r.Target.String()
	return h.then(w.bare(r.Destination, r.Inner))
}

// hostname is an endpoint that DNS knows.
func (w *walk) hostname(h *Hop, host string, port uint16) path {
	h.Next = "plain TCP to what DNS has for " + host
	return h.end(Verdict{Outcome: Allowed, Reached: []string{fmt.Sprintf("%s:%d", host, port)}, Cause: fmt.Sprintf(
		"the connection goes to %s, port %d, whose address the proxy asks DNS for", host, port)})
}

func (w *walk) endpointFact(h *Hop, s *l4.Service, dest *l4.Workload, port uint16) {
	if s == nil {
		return
	}
	total, chosen, unhealthy := 0, 0, 0
	for _, c := range l4.Candidates(w.m.State, l4.Conn{SourceWorkload: w.anySource()}, s, w.to.port) {
		total++
		if c.Chosen {
			chosen++
		}
		if !c.Healthy {
			unhealthy++
		}
	}
	text := fmt.Sprintf("%s port %d, one of %d", dest.Name, port, chosen)
	if total > chosen {
		text += fmt.Sprintf(" (of %d in all, %d not ready)", total, unhealthy)
	}
	h.add("endpoint", text, w.m.workloadRef(dest, ""))
}

// refusal explains why the source's ztunnel does not let the connection out.
func (w *walk) refusal(h *Hop, err error) Verdict {
	h.add("refused", err.Error(), nil)
	s := w.m.service(w.to.service)
	waypoint := ""
	if s != nil {
		waypoint = s.Binding.Waypoint
	} else if w.to.workload != nil {
		if t := w.m.workloads[w.to.workload.UID]; t != nil {
			waypoint = t.Binding.Waypoint
		}
	}
	switch {
	case errors.Is(err, l4.ErrUnknownWaypoint):
		v := broken("deploy it: istioctl waypoint apply", "waypoint %s is not there, and ztunnel does not go round it", waypoint)
		return w.aboutWaypoint(v, waypoint)
	case errors.Is(err, l4.ErrNoHealthyUpstream) && strings.Contains(err.Error(), "waypoint "):
		v := broken("look at the pods of the waypoint: istioctl waypoint status", "waypoint %s has no pod that is ready, and ztunnel does not go round it", waypoint)
		return w.aboutWaypoint(v, waypoint)
	case errors.Is(err, l4.ErrNoHealthyUpstream) && s != nil:
		return w.empty(s, nil, "", w.atClient())
	case errors.Is(err, l4.ErrLoop):
		return denied("use another port", "%v", err)
	}
	return broken("", "%v", err)
}

func (w *walk) aboutWaypoint(v Verdict, waypoint string) Verdict {
	ns, name, _ := strings.Cut(waypoint, "/")
	if w.m.objects[key("Gateway", ns, name)] != nil {
		v = v.about(w.m.World.Ref("Gateway", ns, name, ""))
	}
	return v.about(w.bindingRef())
}
