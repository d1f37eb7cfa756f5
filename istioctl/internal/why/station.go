package why

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// toWaypoint goes through the waypoint that the source's ztunnel has chosen.
func (w *walk) toWaypoint(h *Hop, r l4.Route) path {
	b, _ := w.binding()
	h.add("waypoint", b.Waypoint+", which the label asks for", w.bindingRef())
	h.add("protocol", "HBONE (mutual TLS), to "+r.Target.String()+" for "+r.Authority, nil)
	h.Next = "HBONE to the waypoint, " + r.Target.String()
	ns, name, _ := strings.Cut(b.Waypoint, "/")
	conn := l7.Conn{
		Source: netip.AddrPortFrom(w.from.address, 40000), Destination: r.Inner, Identity: w.from.identity.String(),
		LocalIdentity: r.NextHop().String(), Authority: r.Authority,
	}
	return h.then(w.atWaypoint(simulate.Proxy{Kind: simulate.Waypoint, Namespace: ns, Gateway: name}, r.Destination, conn))
}

// atWaypoint asks a waypoint.
func (w *walk) atWaypoint(p simulate.Proxy, self *l4.Workload, conn l7.Conn) path {
	h := &Hop{Title: "waypoint " + p.Namespace + "/" + p.Gateway + where(self), proxy: passed{gateway: p.Namespace + "/" + p.Gateway}}
	p.Pod = w.podName(self)
	s := &station{w: w, proxy: w.m.Proxy(p), self: self, name: "waypoint " + p.Namespace + "/" + p.Gateway}
	w.l7, w.waypoint = true, true
	if w.q.SNI != "" {
		conn.Hello, conn.SNI = true, w.q.SNI
	}
	h.add("client", conn.Identity+", proven by mutual TLS", nil)
	cfg := s.proxy.Config
	for _, name := range slices.Sorted(maps.Keys(cfg.Listeners)) {
		l := cfg.Listeners[name]
		if !slices.ContainsFunc(l.Addresses, func(a l7.ListenAddress) bool { return a.Port() == hbonePort }) {
			continue
		}
		outer, ok := cfg.Chain(name, &l7.Conn{Source: conn.Source, Destination: netip.AddrPortFrom(s.address(), hbonePort)}, l7.ProtocolUnknown)
		if !ok || outer.Terminate == nil {
			continue
		}
		return s.serve(h, cfg.InternalListener(outer.Terminate.Cluster), conn, w.host())
	}
	v := broken("", "%s has no listener for tunnels", s.name)
	if len(s.proxy.Refused) > 0 {
		v.Cause += ": it refuses its configuration: " + strings.Join(s.proxy.Refused, "; ")
	}
	return h.end(s.aboutGateway(v))
}

// podName is the pod of a proxy; empty when it is none that is known.
func (w *walk) podName(self *l4.Workload) string {
	if p := w.m.podOf(self); p != nil {
		return p.Name
	}
	return ""
}

// host is the authority of a request to the destination, as clients write it.
func (w *walk) host() string {
	if w.to == nil {
		return ""
	}
	host := w.to.host
	name, port, err := splitPort(w.q.To)
	if err == nil && !strings.Contains(name, "/") {
		host = name
	}
	if w.to.service == nil && w.to.address.IsValid() {
		host = w.to.address.String()
	}
	if port != 0 && port != 80 {
		host = fmt.Sprintf("%s:%d", host, port)
	}
	return host
}

// throughWaypoint is a gateway that leaves a service to its waypoint.
func (s *station) throughWaypoint(h *Hop, e *l7.Endpoint) path {
	w := s.w
	dest := w.m.State.WorkloadByIP(w.m.Mesh.Settings().Network, e.Waypoint.Addr())
	if dest == nil {
		return h.end(broken("", "the waypoint at %s is no workload that is known", e.Waypoint))
	}
	gateway := w.gatewayOf(dest)
	if gateway == nil {
		return h.end(broken("", "%s/%s is no waypoint", dest.Namespace, dest.Name))
	}
	h.add("waypoint", gateway.Namespace+"/"+gateway.Gateway+": the service has the label istio.io/ingress-use-waypoint", nil)
	h.Next = "HBONE to the waypoint, " + e.Waypoint.String()
	gateway.Kind = simulate.Waypoint
	return h.then(w.atWaypoint(*gateway, dest, l7.Conn{
		Source: netip.AddrPortFrom(s.address(), 40000), Destination: e.Address, Identity: s.identity().String(),
		LocalIdentity: dest.Identity().String(), Authority: e.Address.String(),
	}))
}

// gatewayOf is the gateway that a workload is a proxy of; nil for others. Waypoints take tunnels only.
func (w *walk) gatewayOf(local *l4.Workload) *simulate.Proxy {
	t := w.m.workloads[local.UID]
	if t == nil {
		return nil
	}
	name := t.Labels[labelGatewayName]
	if name == "" {
		for _, gw := range all[*networkingv1.Gateway](w.m, "Gateway.networking.istio.io") {
			if len(gw.Spec.GetSelector()) > 0 && matchesSelectorSet(gw.Spec.GetSelector(), t.Labels) {
				return &simulate.Proxy{Kind: simulate.Router, Namespace: local.Namespace, Labels: t.Labels}
			}
		}
		return nil
	}
	return &simulate.Proxy{Kind: simulate.Router, Namespace: local.Namespace, Gateway: name, Labels: t.Labels}
}

// throughGateway is a client that comes to a gateway.
func (w *walk) throughGateway() (path, error) {
	ns, name, _ := strings.Cut(w.from.gateway, "/")
	gw := object[*gatewayv1.Gateway](w.m, "Gateway", ns, name)
	if gw == nil {
		return w.throughClassic(w.m.classic(ns, name))
	}
	h := &Hop{Title: w.from.title}
	pods := w.m.podsOfGateway(ns, name)
	if p := best(pods); p != nil {
		for self := range w.m.podWorkloads(p) {
			port, host, err := w.gatewayPort(gw)
			if err != nil {
				return path{}, err
			}
			w.q.To = host
			proxy := simulate.Proxy{Kind: simulate.Router, Namespace: ns, Gateway: name, Labels: p.Labels}
			if w.to == nil || w.to.gateway != "" {
				w.to, _ = w.m.destination(host, &source{namespace: ns, workload: w.from.workload})
			}
			h.add("gateway", fmt.Sprintf("%s/%s, port %d", ns, name, port), w.m.World.Of(gw, ""))
			h.Next = fmt.Sprintf("TCP to the gateway, port %d", port)
			return h.then(w.atGateway(proxy, self, w.podPort(ns, name, port))), nil
		}
	}
	v := broken("look at the Gateway's status: kubectl describe gateway "+name, "gateway %s/%s has no pod that runs", ns, name).about(w.m.World.Of(gw, ""))
	if f := w.m.faults("Gateway", ns, name); len(f) > 0 {
		v.Cause += ": " + describe(f)
	}
	return h.end(v), nil
}

func (m *Model) podsOfGateway(ns, name string) []*corev1.Pod {
	return m.podsIn(ns, func(p *corev1.Pod) bool { return p.Labels[labelGatewayName] == name })
}

// gatewayPort is the port at which the client comes, and whom it asks for.
func (w *walk) gatewayPort(gw *gatewayv1.Gateway) (port uint16, host string, err error) {
	host, port, err = splitPort(w.q.To)
	if err != nil {
		return 0, "", err
	}
	if strings.HasPrefix(host, "gateway/") {
		host = ""
		if len(gw.Status.Addresses) > 0 {
			host = gw.Status.Addresses[0].Value
		}
	}
	var known []string
	first := uint16(0)
	listeners := w.m.listenersOf(gw)
	for _, l := range listeners {
		if uint16(l.Port) == port {
			return port, host, nil
		}
		if l.Protocol == gatewayv1.HTTPProtocolType && first == 0 {
			first = uint16(l.Port)
		}
		known = append(known, fmt.Sprint(l.Port))
	}
	// A port of a service is not one of the gateway: the client comes to the listener, and is to get there.
	if first != 0 {
		return first, host, nil
	}
	if len(listeners) > 0 {
		return uint16(listeners[0].Port), host, nil
	}
	return 0, "", fmt.Errorf("gateway %s/%s has no listener (ports %s)", gw.Namespace, gw.Name, strings.Join(known, ", "))
}

// podPort is the port of the gateway's pods for one of its Service.
func (w *walk) podPort(ns, name string, port uint16) uint16 {
	for _, s := range w.m.Mesh.Services() {
		if s.Proto.Namespace != ns || s.Selector[labelGatewayName] != name {
			continue
		}
		for _, p := range s.Proto.Ports {
			if uint16(p.ServicePort) == port && p.TargetPort != 0 {
				return uint16(p.TargetPort)
			}
		}
	}
	return port
}

// greet is what a client says before anything else where the listener looks for it: the name by which it asks for TLS.
func (s *station) greet(l *l7.Listener, conn *l7.Conn) {
	w := s.w
	if l.ProxyProtocol {
		w.notes = addOnce(w.notes, s.name+" takes only connections that begin with the PROXY protocol (gatewayTopology.proxyProtocol): it is taken to be sent, by the load balancer before it")
	}
	if !l.InspectTLS {
		return
	}
	conn.Hello, conn.SNI = true, w.q.SNI
	if conn.SNI == "" {
		conn.SNI, _, _ = splitPort(w.request(w.host()).Authority)
	}
}

// atGateway asks a gateway about a request of a client outside.
func (w *walk) atGateway(p simulate.Proxy, self *l4.Workload, port uint16) path {
	name := strings.TrimSuffix("gateway "+p.Namespace+"/"+p.Gateway, "/")
	h := &Hop{Title: name + where(self)}
	if p.Gateway != "" {
		h.proxy.gateway = p.Namespace + "/" + p.Gateway
	}
	p.Pod = w.podName(self)
	s := &station{w: w, proxy: w.m.Proxy(p), self: self, name: name}
	if classic := s.classicGateways(); len(classic) > 0 {
		s.name = "gateway " + classic[0].Namespace + "/" + classic[0].Name
		h.Title = s.name + where(self)
	}
	w.l7 = true
	conn := l7.Conn{Source: netip.AddrPortFrom(w.from.address, 40000), Destination: netip.AddrPortFrom(s.address(), port)}
	cfg := s.proxy.Config
	for _, name := range slices.Sorted(maps.Keys(cfg.Listeners)) {
		if l := cfg.Listeners[name]; slices.ContainsFunc(l.Addresses, func(a l7.ListenAddress) bool { return a.Port() == port }) {
			s.greet(l, &conn)
			return s.serve(h, name, conn, w.host())
		}
	}
	v := broken("", "%s has no listener for port %d", s.name, port)
	if len(s.proxy.Refused) > 0 {
		v.Cause += ": it refuses its configuration: " + strings.Join(s.proxy.Refused, "; ")
	}
	if f := w.m.faults("Gateway", p.Namespace, p.Gateway); len(f) > 0 {
		v.Cause += ": " + describe(f)
	}
	v = s.listenerSetFaults(s.protocolMisses(v, port))
	if v = s.connectionMisses(v, conn.SNI, conn.Hello); len(v.Refs) > 0 {
		return h.end(v)
	}
	return h.end(s.aboutGateway(v))
}
