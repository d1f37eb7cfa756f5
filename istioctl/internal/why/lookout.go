package why

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// lookout is a ztunnel that may see the connection arrive.
type lookout struct {
	pod     reach.Pod
	targets []netip.AddrPort
	// clients are the addresses of those that come: the source, or a waypoint on the way.
	clients []string
	sights  sights
}

// sights are what a lookout has seen. Connections are counted by their ends, as streams of one HBONE connection have the same ends.
type sights struct {
	// before is how many there were, at least, since the first look.
	before map[string]int
	// last is what the last look has shown. One that policies refuse is there for a moment, too: who has arrived is seen twice.
	last map[string]int
	// looks is how often it was looked since the first time.
	looks int
}

// note takes what a look has shown, and returns one that is new and was so at the look before; empty when there is none.
func (s *sights) note(now map[string]int) (newcomer string) {
	for ends, n := range s.before {
		s.before[ends] = min(n, now[ends])
	}
	for ends, n := range now {
		if min(n, s.last[ends]) > s.before[ends] {
			newcomer = max(newcomer, ends) // whichever, but the same at each run
		}
	}
	s.last = now
	s.looks++
	return newcomer
}

// destinations are the ztunnels before the endpoints that the connection may end at.
func (m *Model) destinations(ctx context.Context, mesh *reach.Mesh, r *Report) []*lookout {
	byNode := map[string][]netip.AddrPort{}
	for _, text := range r.Verdict.Reached {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			continue
		}
		if w := m.State.WorkloadByIP(m.Mesh.Settings().Network, at.Addr()); w != nil && w.HBONE {
			byNode[w.Node] = append(byNode[w.Node], at)
		}
	}
	if len(byNode) == 0 || len(byNode) > mostNodes {
		return nil
	}
	pods, err := mesh.Pods(ctx, "", "app=ztunnel")
	if err != nil {
		return nil
	}
	clients := m.comers(r)
	var out []*lookout
	for _, p := range pods {
		if targets := byNode[p.Node]; len(targets) > 0 {
			l := &lookout{pod: p, targets: targets, clients: clients}
			if before, ok := l.seen(ctx, mesh); ok {
				l.sights.before = before
				out = append(out, l)
			}
		}
	}
	if len(out) < len(byNode) {
		return nil // where not all can be asked, silence says nothing
	}
	return out
}

// comers are the addresses of the source and of the proxies of Gateways on the way.
func (m *Model) comers(r *Report) (out []string) {
	add := func(p *corev1.Pod) {
		for _, ip := range p.Status.PodIPs {
			out = append(out, ip.IP)
		}
	}
	add(r.source)
	for _, h := range r.Hops {
		if ns, name, ok := strings.Cut(h.proxy.gateway, "/"); ok {
			for _, p := range m.podsOfGateway(ns, name) {
				add(p)
			}
		}
	}
	return out
}

// seen are the connections to the targets: how many have the same ends.
func (l *lookout) seen(ctx context.Context, mesh *reach.Mesh) (out map[string]int, ok bool) {
	data, err := mesh.Get(ctx, l.pod, reach.AdminPort, "/config_dump")
	if err != nil {
		return nil, false
	}
	z, err := dump.ReadZtunnel(data)
	if err != nil {
		return nil, false
	}
	out = map[string]int{}
	for _, pod := range z.Connections(dump.ConnectionFilter{}) {
		var have struct {
			Connections struct {
				Inbound []struct {
					Src       string `json:"src"`
					ActualDst string `json:"actualDst"`
				} `json:"inbound"`
			} `json:"connections"`
		}
		if !into(pod, &have) {
			continue
		}
		for _, c := range have.Connections.Inbound {
			from, _, _ := net.SplitHostPort(c.Src)
			if slices.Contains(l.clients, from) && slices.ContainsFunc(l.targets, func(t netip.AddrPort) bool { return t.String() == c.ActualDst }) {
				out[c.Src+" "+c.ActualDst]++
			}
		}
	}
	return out, true
}

// arrived is where a new connection has come to; empty is nowhere yet.
func arrived(ctx context.Context, mesh *reach.Mesh, watch []*lookout) string {
	for _, l := range watch {
		now, ok := l.seen(ctx, mesh)
		if !ok {
			continue
		}
		if ends := l.sights.note(now); ends != "" {
			_, at, _ := strings.Cut(ends, " ")
			return at
		}
	}
	return ""
}

// watched tells whether the lookouts would have seen it: silence of those that could not be asked says nothing.
func watched(watch []*lookout) bool {
	for _, l := range watch {
		if l.sights.looks < 2 {
			return false
		}
	}
	return len(watch) > 0
}
