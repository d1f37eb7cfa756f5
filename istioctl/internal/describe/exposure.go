package describe

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

const waypointClass = "istio-waypoint"

// exposure says through which gateways a service is reached from outside.
func (m *Mesh) exposure(p *printer, s *corev1.Service, pod *corev1.Pod) {
	for _, g := range m.gateways {
		if string(g.Spec.GatewayClassName) == waypointClass {
			continue
		}
		var its []route
		for _, r := range m.routes {
			if r.leads(s) && slices.ContainsFunc(r.parents, func(ref gatewayv1.ParentReference) bool {
				return m.through(r, ref, g)
			}) {
				its = append(its, r)
			}
		}
		if len(its) == 0 {
			continue
		}
		p.rule()
		p.line(0, "Exposed on Gateway %s %s", g.Namespace+"/"+g.Name, strings.Join(m.gatewayURLs(g), " "))
		for _, r := range its {
			p.line(0, "%s: %s%s", r.kind, displayed(r.namespace, r.name, s.Namespace), hosts(r.hosts))
			r.describe(p, s.Namespace)
		}
		m.gatewayLimits(p, g, its, s.Namespace)
	}
	m.classicExposure(p, s, pod)
}

func hosts(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return " for " + strings.Join(all, ", ")
}

// through tells whether a parent of a route is the Gateway, or a ListenerSet that it takes.
func (m *Mesh) through(r route, ref gatewayv1.ParentReference, g *gatewayv1.Gateway) bool {
	if namespace, name, ok := r.parent(ref, gatewayv1.GroupName, "Gateway"); ok {
		return namespace == g.Namespace && name == g.Name
	}
	namespace, name, ok := r.parent(ref, gatewayv1.GroupName, gateway.KindListenerSet)
	among := m.listenerSets()
	return ok && slices.ContainsFunc(among.ListenerSets(g.Namespace, g.Name), func(set *gatewayv1.ListenerSet) bool {
		return set.Namespace == namespace && set.Name == name && gateway.ListenerSetAllowed(among, g, set) == ""
	})
}

func (m *Mesh) listenerSets() gateway.ListenerSetsAmong {
	return gateway.ListenerSetsAmong{Namespaces: m.namespaces, Sets: m.sets}
}

// gatewayURLs are those of a Gateway's own listeners, and of those that ListenerSets add.
func (m *Mesh) gatewayURLs(g *gatewayv1.Gateway) []string {
	var out []string
	for _, l := range slices.Concat(g.Spec.Listeners, gateway.SetListeners(m.listenerSets(), g)) {
		for _, a := range g.Status.Addresses {
			if u := url(string(l.Protocol), a.Value, int32(l.Port)); !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	if len(out) == 0 {
		return []string{"(WARNING: it has no address)"}
	}
	return out
}

func url(protocol, host string, port int32) string {
	scheme := strings.ToLower(protocol)
	if scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(port))
}

// classicExposure is exposure by Gateways and VirtualServices of Istio's own.
func (m *Mesh) classicExposure(p *printer, s *corev1.Service, pod *corev1.Pod) {
	for _, v := range m.virtual {
		if !slices.ContainsFunc(v.Spec.GetHttp(), func(r *networkingapi.HTTPRoute) bool {
			return slices.ContainsFunc(r.GetRoute(), func(d *networkingapi.HTTPRouteDestination) bool {
				return m.hostOf(d.GetDestination().GetHost(), v.Namespace, s)
			})
		}) {
			continue
		}
		for _, ref := range v.Spec.GetGateways() {
			if ref == "mesh" {
				continue
			}
			g := m.classicGateway(ref, v.Namespace)
			p.rule()
			if g == nil {
				p.line(0, "WARNING: VirtualService %s names Gateway %s, which is not there", displayed(v.Namespace, v.Name, s.Namespace), ref)
				continue
			}
			p.line(0, "Exposed on Ingress Gateway %s", strings.Join(m.classicURLs(g), " "))
			p.line(0, "VirtualService: %s%s", displayed(v.Namespace, v.Name, s.Namespace), hosts(v.Spec.GetHosts()))
			for _, r := range v.Spec.GetHttp() {
				p.line(1, "%s -> %s", httpMatches(r), m.destinations(v, r, s, pod))
			}
		}
	}
}

func (m *Mesh) classicGateway(ref, near string) *networkingv1.Gateway {
	namespace, name, ok := strings.Cut(ref, "/")
	if !ok {
		namespace, name = near, ref
	}
	for _, g := range m.classic {
		if g.Namespace == namespace && g.Name == name {
			return g
		}
	}
	return nil
}

// classicURLs are where the proxies of a Gateway can be reached.
func (m *Mesh) classicURLs(g *networkingv1.Gateway) []string {
	var proxies []*corev1.Pod
	for _, pod := range m.pods {
		if within(g.Spec.GetSelector(), pod.Labels) && ready(pod) {
			proxies = append(proxies, pod)
		}
	}
	if len(proxies) == 0 {
		return []string{fmt.Sprintf("(WARNING: no pod of Gateway %s/%s is ready)", g.Namespace, g.Name)}
	}
	var out []string
	for _, s := range m.services {
		if !slices.ContainsFunc(proxies, func(pod *corev1.Pod) bool { return selects(s, pod) }) {
			continue
		}
		for _, server := range g.Spec.GetServers() {
			for _, port := range s.Spec.Ports {
				target := cmp.Or(port.TargetPort.IntVal, port.Port)
				if number := int32(server.GetPort().GetNumber()); number != port.Port && number != target {
					continue
				}
				for _, a := range addresses(s) {
					if one := url(server.GetPort().GetProtocol(), a, port.Port); !slices.Contains(out, one) {
						out = append(out, one)
					}
				}
			}
		}
	}
	if len(out) == 0 {
		return []string{"(no service has its ports)"}
	}
	return out
}

// addresses are those of a service that are reached from the furthest.
func addresses(s *corev1.Service) []string {
	var out []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		out = append(out, cmp.Or(in.Hostname, in.IP))
	}
	if len(out) == 0 && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
		out = append(out, s.Name+"."+s.Namespace)
	}
	return out
}
