package why

import (
	"fmt"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// upstream tells what else than bytes is sent to an endpoint: the PROXY protocol, TLS that the proxy begins. It is a verdict when that
// cannot be.
func (s *station) upstream(h *Hop, c *l7.Cluster, e *l7.Endpoint) *Verdict {
	w, socket := s.w, c.SocketFor(e)
	if socket.Proxy != 0 {
		ref := w.trafficPolicyRef(parseCluster(c.Name), func(p *networkingapi.TrafficPolicy) (string, bool) {
			return "proxyProtocol", p.GetProxyProtocol() != nil
		}, nil)
		h.add("told", fmt.Sprintf("the PROXY protocol, version %d, tells the endpoint of the client before anything else", socket.Proxy), ref)
		w.warn(ref, "take proxyProtocol out of the DestinationRule unless the application expects it",
			"the application behind %s has to understand the PROXY protocol: one that does not takes it for the beginning of the request", c.Name)
	}
	if socket.TLS == nil || socket.TLS.Certificate == l7.OwnCertificate {
		return nil
	}
	ref := w.tlsRef(parseCluster(c.Name))
	if c.BackendTLSPolicy != "" {
		ref = w.backendTLSRef(c, "spec.validation.hostname")
	}
	mode := "SIMPLE"
	if socket.TLS.Certificate != "" || socket.TLS.CertFile != "" {
		mode = "MUTUAL"
	}
	text := mode + " TLS, which the proxy begins"
	if socket.TLS.SNI != "" {
		text += ", for " + socket.TLS.SNI
	}
	if ref != nil {
		text += ", as " + ref.Kind + " " + ref.Namespace + "/" + ref.Name + " says"
	}
	h.add("TLS", text, ref)
	if c.BackendTLSPolicy != "" {
		return nil // its credentials are what the cluster is made from, and it is for applications whose clients have no TLS
	}
	for _, name := range []string{socket.TLS.Certificate, socket.TLS.Validation} {
		fault, of := s.credentialFault(name)
		if fault == "" {
			continue
		}
		v := broken(fmt.Sprintf("make it in namespace %s, that of the proxy, or correct credentialName", of.Source.Namespace),
			"%s cannot begin TLS to %s: %s, which is named as its credential: %s", s.name, c.Name, of.Source, fault)
		v.Status = 503
		v = v.about(w.credentialNameRef(parseCluster(c.Name)), ref)
		return &v
	}
	if e.Workload != "" && w.plainPort(c) {
		w.warn(ref, "take tls out of the DestinationRule, unless the application's port speaks TLS",
			"%s begins TLS to the endpoints of %s, whose port is declared to speak plain HTTP: an application that does not speak TLS there answers nothing, and the client gets 503", s.name, c.Name)
	}
	return nil
}

// backendTLSRef is a field of the BackendTLSPolicy that a cluster follows.
func (w *walk) backendTLSRef(c *l7.Cluster, field string) *Ref {
	namespace, name, _ := strings.Cut(c.BackendTLSPolicy, "/")
	p := object[*gatewayv1.BackendTLSPolicy](w.m, "BackendTLSPolicy", namespace, name)
	if p == nil {
		return nil
	}
	return w.m.World.Of(p, field)
}

// refused explains a cluster that has no endpoints because nobody can vouch for them.
func (s *station) refused(c *l7.Cluster) Verdict {
	v := broken("make the object with the certificate of who signs those of the backend, under the key ca.crt, or correct the policy",
		"%s sends nothing to %s: the BackendTLSPolicy %s wants TLS to it, and nobody is trusted: %s", s.name, c.Name, c.BackendTLSPolicy, c.Refused)
	v.Status = 503
	return v.about(s.w.backendTLSRef(c, "spec.validation"))
}

// plainPort is whether a cluster's port is declared to speak HTTP, which has no TLS.
func (w *walk) plainPort(c *l7.Cluster) bool {
	name := parseCluster(c.Name)
	s := w.m.service(w.m.lookup(name.host, w.destinationNamespace()))
	if s == nil || s.Entry != "" {
		return false
	}
	for _, p := range s.Proto.Ports {
		if p.ServicePort == name.port {
			return p.AppProtocol == workload.AppProtocol_HTTP11 || p.AppProtocol == workload.AppProtocol_HTTP2 || p.AppProtocol == workload.AppProtocol_GRPC
		}
	}
	return false
}

// trafficPolicyRef is where a DestinationRule says something about a cluster: of the subset, of the port, or of all.
func (w *walk) trafficPolicyRef(c clusterName, top func(*networkingapi.TrafficPolicy) (string, bool),
	port func(*networkingapi.TrafficPolicy_PortTrafficPolicy) (string, bool),
) *Ref {
	for _, dr := range w.destinationRules(c.host) {
		try := func(p *networkingapi.TrafficPolicy, at string) *Ref {
			for i, own := range p.GetPortLevelSettings() {
				if port == nil || own.GetPort().GetNumber() != c.port {
					continue
				}
				if field, ok := port(own); ok {
					return w.m.World.Of(dr, fmt.Sprintf("%s.portLevelSettings[%d].%s", at, i, field))
				}
			}
			if field, ok := top(p); ok && p != nil {
				return w.m.World.Of(dr, at+"."+field)
			}
			return nil
		}
		for i, s := range dr.Spec.GetSubsets() {
			if s.GetName() == c.subset && c.subset != "" {
				if ref := try(s.GetTrafficPolicy(), fmt.Sprintf("spec.subsets[%d].trafficPolicy", i)); ref != nil {
					return ref
				}
			}
		}
		if ref := try(dr.Spec.GetTrafficPolicy(), "spec.trafficPolicy"); ref != nil {
			return ref
		}
	}
	return nil
}

func (w *walk) tlsRef(c clusterName) *Ref {
	return w.trafficPolicyRef(c,
		func(p *networkingapi.TrafficPolicy) (string, bool) { return "tls.mode", p.GetTls() != nil },
		func(p *networkingapi.TrafficPolicy_PortTrafficPolicy) (string, bool) {
			return "tls.mode", p.GetTls() != nil
		})
}

func (w *walk) credentialNameRef(c clusterName) *Ref {
	return w.trafficPolicyRef(c,
		func(p *networkingapi.TrafficPolicy) (string, bool) {
			return "tls.credentialName", p.GetTls().GetCredentialName() != ""
		},
		func(p *networkingapi.TrafficPolicy_PortTrafficPolicy) (string, bool) {
			return "tls.credentialName", p.GetTls().GetCredentialName() != ""
		})
}

// distributed explains a cluster without endpoints by a rule that sends traffic to localities where there are none.
func (s *station) distributed(c clusterName) *Verdict {
	var found *networkingapi.LocalityLoadBalancerSetting
	const field = "loadBalancer.localityLbSetting.distribute"
	ref := s.w.trafficPolicyRef(c,
		func(p *networkingapi.TrafficPolicy) (string, bool) {
			set := p.GetLoadBalancer().GetLocalityLbSetting()
			if len(set.GetDistribute()) == 0 {
				return "", false
			}
			found = set
			return field, true
		},
		func(p *networkingapi.TrafficPolicy_PortTrafficPolicy) (string, bool) {
			set := p.GetLoadBalancer().GetLocalityLbSetting()
			if len(set.GetDistribute()) == 0 {
				return "", false
			}
			found = set
			return field, true
		})
	if ref == nil {
		return nil
	}
	var to []string
	for _, d := range found.GetDistribute() {
		for _, place := range sortedKeys(d.GetTo()) {
			to = addOnce(to, fmt.Sprintf("%s (%d %% of what comes from %s)", place, d.GetTo()[place], d.GetFrom()))
		}
	}
	v := broken("name localities in which the service has pods (labels topology.kubernetes.io/region and zone of their nodes)",
		"DestinationRule %s/%s sends traffic to %s, and %s has no endpoints there", ref.Namespace, ref.Name, strings.Join(to, ", "), c.host).about(ref)
	return &v
}

// priorities tells which endpoints are used first, where places matter.
func (s *station) priorities(h *Hop, name string, endpoints *l7.Endpoints) {
	levels := map[uint32][]string{}
	for _, e := range endpoints.List {
		at := strings.Trim(e.Locality.Region+"/"+e.Locality.Zone+"/"+e.Locality.SubZone, "/")
		if at == "" {
			at = "no locality"
		}
		levels[e.Priority] = addOnce(levels[e.Priority], at)
	}
	if len(levels) < 2 {
		return
	}
	var out []string
	var order []uint32
	for p := range levels {
		order = append(order, p)
	}
	slices.Sort(order)
	for _, p := range order {
		slices.Sort(levels[p])
		out = append(out, strings.Join(levels[p], ", "))
	}
	ref := s.w.trafficPolicyRef(parseCluster(name), func(p *networkingapi.TrafficPolicy) (string, bool) {
		return "loadBalancer.localityLbSetting", p.GetLoadBalancer().GetLocalityLbSetting() != nil
	}, nil)
	h.add("localities", "first "+strings.Join(out, ", then ")+": those that come later are used when the others fail", ref)
}

// vantage is where the proxy chooses among endpoints.
func (s *station) vantage() vantage {
	if s.self == nil {
		return vantage{}
	}
	return vantage{s.name + "'s", s.self.Node}
}

// ownNode tells that only endpoints of the proxy's node are looked at, where the service wants it so.
func (s *station) ownNode(h *Hop, name string) {
	svc := s.w.m.service(s.w.m.lookup(parseCluster(name).host, s.proxy.Namespace))
	if svc == nil || s.self == nil || s.proxy.Kind == simulate.Router && svc.Proto.GetIngressUseWaypoint() || !s.w.keepsToNode(svc) {
		return
	}
	h.add("node", "only endpoints on the proxy's own node, "+s.self.Node+", as internalTrafficPolicy: Local says", s.w.m.serviceRef(svc, "spec.internalTrafficPolicy"))
}

// mayBe are the endpoints that a connection may go to: of several priorities, those of the first with one that is healthy.
func mayBe(endpoints *l7.Endpoints) []*l7.Endpoint {
	best, found := uint32(0), false
	for _, e := range endpoints.List {
		if e.Health != l7.Unhealthy && (!found || e.Priority < best) {
			best, found = e.Priority, true
		}
	}
	if !found {
		return endpoints.List
	}
	var out []*l7.Endpoint
	for _, e := range endpoints.List {
		if e.Priority == best {
			out = append(out, e)
		}
	}
	return out
}

// classicGateways are those whose selector selects the proxy.
func (s *station) classicGateways() (out []*networkingv1.Gateway) {
	if s.proxy.Gateway != "" && object[*gatewayv1.Gateway](s.w.m, "Gateway", s.proxy.Namespace, s.proxy.Gateway) != nil {
		return nil
	}
	for _, gw := range all[*networkingv1.Gateway](s.w.m, kindClassic) {
		if len(gw.Spec.GetSelector()) > 0 && matchesSelectorSet(gw.Spec.GetSelector(), s.proxy.Labels) {
			out = append(out, gw)
		}
	}
	return out
}
