package why

import (
	"fmt"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
)

func (m *Model) classic(ns, name string) *networkingv1.Gateway {
	return object[*networkingv1.Gateway](m, kindClassic, ns, name)
}

// throughClassic is a client that comes to a gateway which a Gateway of Istio's own API selects by labels.
func (w *walk) throughClassic(gw *networkingv1.Gateway) (path, error) {
	h := &Hop{Title: w.from.title}
	selector := gw.Spec.GetSelector()
	p := best(w.m.podsIn("", func(*corev1.Pod) bool { return false }))
	namespaces := append([]string{gw.Namespace}, sortedKeys(w.m.inNamespace)...)
	for _, ns := range namespaces {
		if p == nil && len(selector) > 0 {
			p = best(w.m.podsIn(ns, func(p *corev1.Pod) bool { return matchesSelectorSet(selector, p.Labels) }))
		}
	}
	if p == nil {
		return h.end(w.selectsNoGateway(gw)), nil
	}
	port, host, err := w.serverPort(gw)
	if err != nil {
		return path{}, err
	}
	w.q.To = host
	for self := range w.m.podWorkloads(p) {
		proxy := simulate.Proxy{Kind: simulate.Router, Namespace: p.Namespace, Gateway: p.Labels[labelGatewayName], Labels: p.Labels}
		w.to, _ = w.m.destination(host, &source{namespace: gw.Namespace, workload: w.from.workload})
		h.add("gateway", fmt.Sprintf("%s/%s, port %d, served by pod %s/%s", gw.Namespace, gw.Name, port, p.Namespace, p.Name), w.m.World.Of(gw, ""))
		h.Next = fmt.Sprintf("TCP to the gateway, port %d", port)
		return h.then(w.atGateway(proxy, self, w.classicPort(proxy, p, port))), nil
	}
	return h.end(broken("look at the pod: kubectl describe pod", "pod %s/%s, which Gateway %s/%s selects, has no address", p.Namespace, p.Name, gw.Namespace, gw.Name).
		about(w.m.World.Of(p, ""))), nil
}

// classicPort is the port at which the pod listens for one of the server: that of its Service's pods, if there is one.
func (w *walk) classicPort(proxy simulate.Proxy, p *corev1.Pod, port uint16) uint16 {
	for _, s := range w.m.Mesh.Services() {
		if s.Proto.Namespace != p.Namespace || len(s.Selector) == 0 || !matchesSelectorSet(s.Selector, p.Labels) {
			continue
		}
		for _, sp := range s.Proto.Ports {
			if uint16(sp.ServicePort) == port && sp.TargetPort != 0 && w.listens(proxy, uint16(sp.TargetPort)) {
				return uint16(sp.TargetPort)
			}
		}
	}
	return port
}

// listens is whether the proxy has a listener for a port.
func (w *walk) listens(proxy simulate.Proxy, port uint16) bool {
	for _, l := range w.m.Proxy(proxy).Config.Listeners {
		for _, a := range l.Addresses {
			if a.Port() == port {
				return true
			}
		}
	}
	return false
}

// serverPort is the port at which the client comes: the one that is asked for, or the first of HTTP.
func (w *walk) serverPort(gw *networkingv1.Gateway) (port uint16, host string, err error) {
	host, port, err = splitPort(w.q.To)
	if err != nil {
		return 0, "", err
	}
	if strings.HasPrefix(host, "gateway/") {
		host = w.q.SNI
	}
	first := uint16(0)
	for _, s := range gw.Spec.GetServers() {
		if port == 0 && (first == 0 || s.GetPort().GetProtocol() == "HTTP") {
			first = uint16(s.GetPort().GetNumber())
		}
	}
	if port == 0 {
		port = first
	}
	if port == 0 {
		return 0, "", fmt.Errorf("gateway %s/%s has no server", gw.Namespace, gw.Name)
	}
	return port, host, nil
}

// selectsNoGateway explains a selector that no pod matches.
func (w *walk) selectsNoGateway(gw *networkingv1.Gateway) Verdict {
	selector := gw.Spec.GetSelector()
	v := broken("correct the selector, or deploy a gateway whose pods have these labels",
		"no pod has the labels that Gateway %s/%s selects (%s): nobody serves it", gw.Namespace, gw.Name, labels.Set(selector)).
		about(w.m.World.Of(gw, "spec.selector"))
	for _, ns := range sortedKeys(w.m.inNamespace) {
		for _, p := range w.m.inNamespace[ns] {
			for _, k := range sortedKeys(selector) {
				if have := p.Labels[k]; have != "" && have != selector[k] && editDistance(have, selector[k]) <= 2 {
					v.Cause += fmt.Sprintf("; pod %s/%s has %s=%s", p.Namespace, p.Name, k, have)
					return v.about(w.m.World.Of(p, labelField(k)))
				}
			}
		}
	}
	return v
}

// classicMisses explains a request or name for which no VirtualService counts at a gateway of Istio's own API.
func (s *station) classicMisses(v Verdict, name string, tls bool) Verdict {
	w := s.w
	for _, gw := range s.classicGateways() {
		for _, vs := range w.m.virtualServices() {
			at := slices.IndexFunc(vs.Spec.GetGateways(), func(g string) bool {
				ns, short, both := strings.Cut(g, "/")
				if !both {
					ns, short = vs.Namespace, g
				}
				return ns == gw.Namespace && short == gw.Name
			})
			if at < 0 {
				continue
			}
			v = s.classicMiss(v, gw, vs, name, tls)
		}
	}
	return v
}

func (s *station) classicMiss(v Verdict, gw *networkingv1.Gateway, vs *networkingv1.VirtualService, name string, tls bool) Verdict {
	w := s.w
	shared := false
	var served []string
	servedAt := -1
	for i, server := range gw.Spec.GetServers() {
		for _, host := range server.GetHosts() {
			_, bare, both := strings.Cut(host, "/")
			if !both {
				bare = host
			}
			served = addOnce(served, bare)
			if servedAt < 0 {
				servedAt = i
			}
			shared = shared || slices.ContainsFunc(vs.Spec.GetHosts(), func(h string) bool { return overlap(h, bare) })
		}
	}
	switch {
	case !shared:
		v.Cause += fmt.Sprintf("; VirtualService %s/%s is for %s, which Gateway %s/%s does not serve (%s)", vs.Namespace, vs.Name,
			strings.Join(vs.Spec.GetHosts(), ", "), gw.Namespace, gw.Name, strings.Join(served, ", "))
		v.Remedy = "let the hosts of the VirtualService be among those of the Gateway's server"
		v = v.about(w.m.World.Of(vs, "spec.hosts"), w.m.World.Of(gw, fmt.Sprintf("spec.servers[%d].hosts", servedAt)))
	case tls:
		for i, rule := range vs.Spec.GetTls() {
			for j, m := range rule.GetMatch() {
				v.Cause += fmt.Sprintf("; VirtualService %s/%s takes %s", vs.Namespace, vs.Name, strings.Join(m.GetSniHosts(), ", "))
				v = v.about(w.m.World.Of(vs, fmt.Sprintf("spec.tls[%d].match[%d].sniHosts", i, j)))
			}
		}
	case !slices.ContainsFunc(vs.Spec.GetHosts(), func(h string) bool { return overlap(h, name) }):
		v.Cause += fmt.Sprintf("; VirtualService %s/%s is for %s", vs.Namespace, vs.Name, strings.Join(vs.Spec.GetHosts(), ", "))
		v = v.about(w.m.World.Of(vs, "spec.hosts"))
	}
	return v
}

// overlap is whether there is a name that both mean.
func overlap(a, b string) bool {
	covers := func(wild, name string) bool {
		return wild == "*" || strings.HasPrefix(wild, "*.") && strings.HasSuffix(name, wild[1:])
	}
	return strings.EqualFold(a, b) || covers(a, b) || covers(b, a)
}

// tcpRule finds the rule of a VirtualService that leads to the destinations of a chain: the listener says which object it was, and not which rule.
func (s *station) tcpRule(clusters []string, origin string) *Ref {
	w := s.w
	same := func(ns string, routes []*networkingapi.RouteDestination) int {
		for i, r := range routes {
			d := r.GetDestination()
			for _, name := range clusters {
				c := parseCluster(name)
				host := d.GetHost()
				if !strings.Contains(host, ".") {
					host = w.m.Mesh.Settings().Hostname(ns, host)
				}
				if host == c.host && d.GetSubset() == c.subset && (d.GetPort() == nil || d.GetPort().GetNumber() == c.port) {
					return i
				}
			}
		}
		return -1
	}
	for _, vs := range w.m.virtualServices() {
		if vs.Namespace+"/"+vs.Name != origin {
			continue
		}
		for i, rule := range vs.Spec.GetTls() {
			if at := same(vs.Namespace, rule.GetRoute()); at >= 0 {
				return w.m.World.Of(vs, fmt.Sprintf("spec.tls[%d].route[%d].destination", i, at))
			}
		}
		for i, rule := range vs.Spec.GetTcp() {
			if at := same(vs.Namespace, rule.GetRoute()); at >= 0 && w.takesPort(rule.GetMatch()) {
				return w.m.World.Of(vs, fmt.Sprintf("spec.tcp[%d].route[%d].destination", i, at))
			}
		}
	}
	return nil
}

// concernsVirtual is whether a VirtualService may be about what comes to this proxy.
func (s *station) concernsVirtual(vs *networkingv1.VirtualService) bool {
	if s.proxy.Kind == simulate.Waypoint {
		return s.w.to != nil && s.w.to.service != nil && slices.ContainsFunc(vs.Spec.GetHosts(), func(h string) bool {
			if !strings.Contains(h, ".") && h != "*" {
				h = s.w.m.Mesh.Settings().Hostname(vs.Namespace, h)
			}
			return h == s.w.to.service.Hostname
		})
	}
	return len(vs.Spec.GetGateways()) > 0
}

// takesPort is whether a rule for connections may take the port that is asked for.
func (w *walk) takesPort(matches []*networkingapi.L4MatchAttributes) bool {
	return len(matches) == 0 || w.to == nil || slices.ContainsFunc(matches, func(m *networkingapi.L4MatchAttributes) bool {
		return m.GetPort() == 0 || uint16(m.GetPort()) == w.to.port
	})
}

// untaken tells of rules for connections that are about another port.
func (s *station) untaken() {
	w := s.w
	for _, vs := range w.m.virtualServices() {
		if len(vs.Spec.GetTcp()) == 0 || !s.concernsVirtual(vs) || s.proxy.Kind != simulate.Waypoint ||
			slices.ContainsFunc(vs.Spec.GetTcp(), func(r *networkingapi.TCPRoute) bool { return w.takesPort(r.GetMatch()) }) {
			continue
		}
		for i, rule := range vs.Spec.GetTcp() {
			for j, m := range rule.GetMatch() {
				w.warn(w.m.World.Of(vs, fmt.Sprintf("spec.tcp[%d].match[%d].port", i, j)), "correct the port, or take the match out",
					"VirtualService %s/%s does not count: tcp[%d] is for port %d, and this is port %d", vs.Namespace, vs.Name, i, m.GetPort(), w.to.port)
			}
		}
	}
}
