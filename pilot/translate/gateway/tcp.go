package gateway

import (
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// WaypointTCP translates what routes say of connections to one service port: TLSRoutes and TCPRoutes if there are any, else the
// VirtualService that counts. The last route is always one that takes all of them. in.ClusterName names the TCP cluster of a host.
func WaypointTCP(v View, in WaypointInput) ([]TCPRoute, []route.Problem) {
	t := in.translation(v)
	var out []TCPRoute
	if api, found := t.serviceConnections(in); found {
		out = api
		for _, vs := range in.applicable() {
			if len(vs.Spec.Tcp)+len(vs.Spec.Tls) > 0 {
				t.problem(virtualServiceOrigin(vs), field.NewPath("spec", "hosts"), "routes of the Gateway API are attached to %s, and take the place of this", in.Service.Hostname)
			}
		}
	} else {
		out = t.classicConnections(in)
	}
	if n := len(out); n == 0 || !out[n-1].all() {
		own := destinationTarget{host: in.Service.Hostname, port: in.Port.Number, cluster: t.cluster(in.Service.Hostname, in.Port.Number, "")}
		out = append(out, TCPRoute{Targets: []TCPTarget{{Cluster: own.cluster, Weight: 1, TCPSettings: t.tcpSettings(own)}}})
	}
	return out, t.problems
}

// classicConnections are those of the VirtualService that counts.
func (t *translation) classicConnections(in WaypointInput) []TCPRoute {
	said := len(t.problems)
	vs := t.elect(in)
	if in.Port.Protocol != TCP && in.Port.Protocol != TLS {
		t.problems = t.problems[:said] // it is said of the requests to the port
	}
	if vs == nil {
		return nil
	}
	return append(t.tlsRoutes(vs, []string{meshGateway}), t.tcpRoutes(vs, []string{meshGateway})...)
}

func (r TCPRoute) all() bool { return len(r.SNI) == 0 && len(r.Destinations) == 0 }

// LeadsTo reports whether connections to the address are meant.
func (r TCPRoute) LeadsTo(a netip.Addr) bool {
	return len(r.Destinations) == 0 || slices.ContainsFunc(r.Destinations, func(text string) bool {
		p, err := netip.ParsePrefix(text)
		return err == nil && p.Contains(a)
	})
}

// connections are the chains of a listener that forwards connections: one per set of SNI hosts for TLS, one for TCP.
func (g *gatewayBuild) connections(l *listener) []ServerChain {
	g.port, g.also = l.number, nil
	var out []ServerChain
	for _, vs := range g.virtual {
		if l.gateway == "" || !g.visible(vs) || !boundTo(vs, l.gateway) {
			continue
		}
		if len(g.sharedHosts(vs, l)) == 0 {
			continue
		}
		routes := g.tcpRoutes(vs, []string{l.gateway})
		if l.protocol == TLS && l.terminated == nil {
			routes = g.tlsRoutes(vs, []string{l.gateway})
		}
		for _, r := range routes {
			out = append(out, ServerChain{SNI: r.SNI, TLS: l.terminated, Origin: l.origin, TCP: []TCPRoute{r}})
		}
	}
	out = g.distinct(out)
	if l.terminated != nil {
		// The client's name has to be one of the server's.
		for i := range out {
			for _, h := range l.hosts {
				if h.host != "*" && !slices.Contains(out[i].SNI, h.host) {
					out[i].SNI = append(out[i].SNI, h.host)
				}
			}
		}
	}
	return out
}

// distinct leaves out what an older route takes already: two chains of a listener may not match the same connections.
func (g *gatewayBuild) distinct(chains []ServerChain) []ServerChain {
	taken := map[[2]string]route.Origin{}
	out := chains[:0]
	for _, c := range chains {
		r := c.TCP[0]
		names, ranges := r.SNI, r.Destinations
		if len(names) == 0 {
			names = []string{""}
		}
		if len(ranges) == 0 {
			ranges = []string{""}
		}
		var left []string
		for _, name := range names {
			free := true
			for _, prefix := range ranges {
				if by, ok := taken[[2]string{strings.ToLower(name), prefix}]; ok {
					free = false
					if by != r.Origin {
						g.problem(r.Origin, field.NewPath("spec"), "connections %sare taken by %s/%s already", forName(name), by.Namespace, by.Name)
					}
				}
			}
			if !free {
				continue
			}
			for _, prefix := range ranges {
				taken[[2]string{strings.ToLower(name), prefix}] = r.Origin
			}
			left = append(left, name)
		}
		if len(left) == 0 {
			continue
		}
		if len(r.SNI) > 0 {
			c.SNI = left
			c.TCP = []TCPRoute{{SNI: left, Destinations: r.Destinations, Targets: r.Targets, Origin: r.Origin}}
		}
		out = append(out, c)
	}
	return out
}

func forName(name string) string {
	if name == "" || name == "*" {
		return ""
	}
	return "for " + name + " "
}

// tcpRoutes translates tcp[] for one proxy; what follows a route that takes everything is left out.
func (t *translation) tcpRoutes(vs *networkingv1.VirtualService, gateways []string) []TCPRoute {
	origin := virtualServiceOrigin(vs)
	var out []TCPRoute
	for i, in := range vs.Spec.Tcp {
		path := field.NewPath("spec", "tcp").Index(i)
		targets := t.tcpTargets(vs, path, in.GetRoute())
		if len(targets) == 0 {
			continue
		}
		if len(in.Match) == 0 {
			return append(out, TCPRoute{Targets: targets, Origin: origin})
		}
		for j, m := range in.Match {
			at := path.Child("match").Index(j)
			if m == nil || !t.concernsConnection(vs, at, connectionMatch{m.Port, m.SourceLabels, m.SourceNamespace, m.Gateways}, gateways) {
				continue
			}
			if m.SourceSubnet != "" {
				t.problem(origin, at.Child("sourceSubnet"), "not supported: the match is left out")
				continue
			}
			r := TCPRoute{Targets: targets, Origin: origin}
			if !t.subnets(origin, at.Child("destinationSubnets"), m.DestinationSubnets, &r) {
				continue
			}
			if out = append(out, r); r.all() {
				return out
			}
		}
	}
	return out
}

// tlsRoutes translates tls[] for one proxy.
func (t *translation) tlsRoutes(vs *networkingv1.VirtualService, gateways []string) []TCPRoute {
	origin := virtualServiceOrigin(vs)
	var out []TCPRoute
	for i, in := range vs.Spec.Tls {
		path := field.NewPath("spec", "tls").Index(i)
		targets := t.tcpTargets(vs, path, in.GetRoute())
		if len(targets) == 0 {
			continue
		}
		for j, m := range in.GetMatch() {
			at := path.Child("match").Index(j)
			if m == nil || !t.concernsConnection(vs, at, connectionMatch{m.Port, m.SourceLabels, m.SourceNamespace, m.Gateways}, gateways) {
				continue
			}
			r := TCPRoute{Targets: targets, Origin: origin}
			for k, host := range m.SniHosts {
				if !validHost(host) {
					t.problem(origin, at.Child("sniHosts").Index(k), "%q is no host name", host)
				} else if host != "*" {
					r.SNI = append(r.SNI, host)
				}
			}
			if slices.Contains(m.SniHosts, "*") {
				r.SNI = nil
			}
			if len(m.SniHosts) == 0 {
				t.problem(origin, at.Child("sniHosts"), "a host is needed")
				continue
			}
			if len(r.SNI) == 0 && !slices.Contains(m.SniHosts, "*") || !t.subnets(origin, at.Child("destinationSubnets"), m.DestinationSubnets, &r) {
				continue
			}
			out = append(out, r)
		}
	}
	return out
}

// connectionMatch is what matches of tcp[] and tls[] have in common.
type connectionMatch struct {
	port            uint32
	sourceLabels    map[string]string
	sourceNamespace string
	gateways        []string
}

func (t *translation) concernsConnection(vs *networkingv1.VirtualService, at *field.Path, m connectionMatch, gateways []string) bool {
	bound := len(m.gateways) == 0 ||
		slices.ContainsFunc(m.gateways, func(g string) bool { return slices.Contains(gateways, gatewayKey(g, vs.Namespace)) })
	if !bound || m.port != 0 && t.port != 0 && m.port != t.port {
		return false
	}
	origin := virtualServiceOrigin(vs)
	switch {
	case len(m.sourceLabels) > 0 && t.waypoint:
		t.problem(origin, at.Child("sourceLabels"), "a waypoint does not know the labels of clients: the match is left out")
	case len(m.sourceLabels) > 0:
		t.problem(origin, at.Child("sourceLabels"), "a gateway's clients have no labels: the match is left out")
	case m.sourceNamespace != "" && t.waypoint:
		t.problem(origin, at.Child("sourceNamespace"), "not supported for connections on a waypoint: the match is left out")
	case m.sourceNamespace != "" && m.sourceNamespace != t.namespace:
		t.problem(origin, at.Child("sourceNamespace"), "a gateway's clients have no namespace: the match is left out")
	default:
		return true
	}
	return false
}

func (t *translation) subnets(origin route.Origin, at *field.Path, in []string, r *TCPRoute) bool {
	for i, text := range in {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil {
				t.problem(origin, at.Index(i), "%q is no range of addresses: the match is left out", text)
				return false
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		r.Destinations = append(r.Destinations, prefix.Masked().String())
	}
	return true
}

func (t *translation) tcpTargets(vs *networkingv1.VirtualService, path *field.Path, in []*networkingapi.RouteDestination) []TCPTarget {
	var out []TCPTarget
	for i, d := range in {
		at := path.Child("route").Index(i)
		to, ok := t.destination(virtualServiceOrigin(vs), vs.Namespace, at.Child("destination"), d.GetDestination())
		if !ok {
			return nil
		}
		weight := uint32(max(d.Weight, 0))
		if len(in) == 1 {
			weight = 1
		}
		if weight > 0 {
			out = append(out, TCPTarget{Cluster: to.cluster, Weight: weight, TCPSettings: t.tcpSettings(to)})
		}
	}
	if len(out) == 0 {
		t.problem(virtualServiceOrigin(vs), path.Child("route"), "a destination is needed")
	}
	return out
}
