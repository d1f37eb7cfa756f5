package why

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// arrival is who comes to the ztunnel of a destination.
type arrival struct {
	address  netip.Addr
	identity spiffe.ID
	pod      *corev1.Pod
}

// tunnel asks the ztunnel of a destination about a tunnel.
func (w *walk) tunnel(local *l4.Workload, inner netip.AddrPort, authority string, from arrival) path {
	h := &Hop{Title: "ztunnel" + where(local) + ", for " + local.Namespace + "/" + local.Name, proxy: passed{node: local.Node}, local: local}
	route, err := l4.DecideInbound(w.m.State, l4.Inbound{Local: local, LocalIP: inner.Addr(), Authority: authority})
	if err != nil {
		var refusal *l4.Refusal
		status := 503
		if errors.As(err, &refusal) {
			status = refusal.Status
		}
		v := broken("", "the destination's ztunnel refuses the tunnel (%d): %v", status, err)
		return h.end(v)
	}
	h.add("peer", principal(from.identity)+", proven by mutual TLS", nil)
	if v := w.admit(h, local, authz.Conn{Source: netip.AddrPortFrom(from.address, 40000), Destination: route.Target, Identity: from.identity}); v != nil {
		return h.end(*v)
	}
	h.Next = "TCP to the application at " + route.Target.String()
	return h.then(w.application(local, route.Target))
}

// plain asks the ztunnel of a destination about a connection without a tunnel.
func (w *walk) plain(local *l4.Workload, dst netip.AddrPort, from arrival) path {
	h := &Hop{Title: "ztunnel" + where(local) + ", for " + local.Namespace + "/" + local.Name, proxy: passed{node: local.Node}, local: local}
	route, err := l4.DecidePlaintext(dst)
	if err != nil {
		return h.end(denied("use another port", "the destination's ztunnel refuses the connection: %v", err))
	}
	h.add("peer", "nobody that is known: plain TCP from "+from.address.String(), nil)
	if v := w.admit(h, local, authz.Conn{Source: netip.AddrPortFrom(from.address, 40000), Destination: dst}); v != nil {
		return h.end(*v)
	}
	h.Next = "TCP to the application at " + route.Target.String()
	return h.then(w.application(local, route.Target))
}

// bare is a destination that no ztunnel stands before.
func (w *walk) bare(local *l4.Workload, dst netip.AddrPort) path {
	if p := w.m.podOf(local); p != nil {
		if text, ref, in := w.m.enrolment(p); !in && w.guarded(local) {
			w.warnings = append(w.warnings, Finding{
				Text: "no policy is enforced for pod " + p.Namespace + "/" + p.Name + ", which is not in the mesh: " + text, Ref: ref, Remedy: w.m.enrolRemedy(p),
			})
		}
	}
	return w.application(local, dst)
}

// guarded is whether there are policies that would count if the workload were in the mesh.
func (w *walk) guarded(local *l4.Workload) bool {
	return len(w.m.State.PoliciesFor(local).Explain(authz.Conn{})) > 0
}

// admit asks the policies of a workload; nil is yes.
func (w *walk) admit(h *Hop, local *l4.Workload, conn authz.Conn) *Verdict {
	w.mtls(h, local, conn.Destination.Port())
	set := w.m.State.PoliciesFor(local)
	verdict := set.Check(conn)
	steps := set.Explain(conn)
	for _, s := range steps {
		w.policyFact(h, local, s, conn)
	}
	if verdict.Allowed {
		if len(steps) == 0 {
			h.add("policies", "none are about this workload at L4", nil)
		}
		return nil
	}
	if verdict.Rule >= 0 {
		v := w.deniedBy(local, verdict, conn)
		return &v
	}
	v := w.noneAllows(steps, conn)
	return &v
}

func (w *walk) policyFact(h *Hop, local *l4.Workload, s authz.Step, conn authz.Conn) {
	ref, name := w.policyRef(local, s.Policy, s.Rule, conn)
	says := "no rule matches"
	if s.Rule >= 0 {
		says = "matches"
		if at := strings.LastIndex(ref.Field, "rules["); at >= 0 {
			says = "rule " + strings.Trim(ref.Field[at+len("rules["):], "]") + " matches"
		}
	}
	action := s.Policy.Action().String()
	if s.Policy.DryRun() {
		if s.Rule >= 0 {
			w.dryRun(ref.Namespace, ref.Name, action, max(ruleIndex(ref.Field), 0))
		}
		action = "dry run of " + action
	}
	h.add("policy", action+" "+name+": "+says, ref)
}

// policyRef finds the object behind a policy of ztunnel, and the rule in it.
func (w *walk) policyRef(local *l4.Workload, p *authz.Policy, rule int, conn authz.Conn) (*Ref, string) {
	ns, name, _ := strings.Cut(p.Key(), "/")
	switch {
	case ns == w.m.Mesh.Settings().RootNamespace && name == "istio_converted_static_strict":
		own := w.peerAuthentication(local)
		return own, "STRICT of " + own.String()
	case strings.HasPrefix(name, "converted_peer_authentication_"):
		name = strings.TrimPrefix(name, "converted_peer_authentication_")
		field := "spec.mtls"
		if pa := object[*securityv1.PeerAuthentication](w.m, "PeerAuthentication", ns, name); pa != nil {
			if _, ok := pa.Spec.GetPortLevelMtls()[uint32(conn.Destination.Port())]; ok {
				field = fmt.Sprintf("spec.portLevelMtls[%d]", conn.Destination.Port())
			}
		}
		return w.m.World.Ref("PeerAuthentication", ns, name, field), "PeerAuthentication " + ns + "/" + name
	case strings.HasPrefix(name, "istio_waypoint_only_"):
		return w.guardRef(ns, strings.TrimPrefix(name, "istio_waypoint_only_")), "istio.io/waypoint-failure-mode"
	}
	field := ""
	if ap := w.m.authorizationPolicy(ns, name); ap != nil && rule >= 0 {
		if i := w.m.Mesh.WrittenRule(ap, rule); i >= 0 {
			field = "spec.rules[" + strconv.Itoa(i) + "]"
		}
	}
	return w.m.World.Ref("AuthorizationPolicy", ns, name, field), ns + "/" + name
}

// guardRef is the label by which nobody but the waypoint may connect.
func (w *walk) guardRef(ns, host string) *Ref {
	const label = "istio.io/waypoint-failure-mode"
	if s := w.m.services[ns+"/"+host]; s != nil {
		if svc := object[*corev1.Service](w.m, "Service", ns, s.Proto.Name); svc != nil && svc.Labels[label] != "" {
			return w.m.World.Of(svc, labelField(label))
		}
	}
	return w.m.World.Ref("Namespace", "", ns, labelField(label))
}

// levels are the PeerAuthentications that count for a workload.
func (w *walk) levels(local *l4.Workload) (root, ns, own *securityv1.PeerAuthentication) {
	var list []*ambient.PeerAuthentication
	mesh := w.m.Mesh.Settings()
	for _, p := range all[*securityv1.PeerAuthentication](w.m, "PeerAuthentication") {
		if p.Namespace == mesh.RootNamespace || p.Namespace == local.Namespace {
			list = append(list, p)
		}
	}
	var labels map[string]string
	if t := w.m.workloads[local.UID]; t != nil {
		labels = t.Labels
	}
	return ambient.PeerAuthenticationsOf(mesh, list, local.Namespace, labels)
}

// peerAuthentication is the one whose mode is in force.
func (w *walk) peerAuthentication(local *l4.Workload) *Ref {
	root, ns, own := w.levels(local)
	for _, p := range []*securityv1.PeerAuthentication{own, ns, root} {
		if p != nil && p.Spec.GetMtls().GetMode() != securityapi.PeerAuthentication_MutualTLS_UNSET {
			return w.m.World.Of(p, "spec.mtls.mode")
		}
	}
	return &Ref{Kind: "PeerAuthentication", Namespace: local.Namespace, Name: "(none)"}
}

// mtls says whether the workload takes plaintext.
func (w *walk) mtls(h *Hop, local *l4.Workload, port uint16) {
	root, ns, own := w.levels(local)
	if own != nil {
		if m, ok := own.Spec.GetPortLevelMtls()[uint32(port)]; ok && m.GetMode() != securityapi.PeerAuthentication_MutualTLS_UNSET {
			h.add("mTLS", fmt.Sprintf("%s for port %d", m.GetMode(), port), w.m.World.Of(own, fmt.Sprintf("spec.portLevelMtls[%d]", port)))
			return
		}
	}
	for _, p := range []*securityv1.PeerAuthentication{own, ns, root} {
		if p != nil && p.Spec.GetMtls().GetMode() != securityapi.PeerAuthentication_MutualTLS_UNSET {
			h.add("mTLS", p.Spec.GetMtls().GetMode().String(), w.m.World.Of(p, "spec.mtls.mode"))
			return
		}
	}
	h.add("mTLS", "PERMISSIVE: no PeerAuthentication says otherwise", nil)
}

// application is the end of a way that nobody has refused.
func (w *walk) application(local *l4.Workload, at netip.AddrPort) path {
	h := &Hop{Title: "application in " + local.Namespace + "/" + local.Name}
	v := Verdict{Outcome: Allowed, Reached: []string{at.String()}, Cause: fmt.Sprintf("the connection reaches %s/%s, port %d", local.Namespace, local.Name, at.Port())}
	if sidecar, ok := w.toSidecar(h, local, v); ok {
		return h.end(sidecar)
	}
	p := w.m.podOf(local)
	if p == nil {
		h.add("port", strconv.Itoa(int(at.Port())), w.m.workloadRef(local, ""))
		return h.end(v)
	}
	var known []string
	for _, c := range containerPorts(p) {
		if uint16(c.ContainerPort) == at.Port() {
			h.add("port", fmt.Sprintf("%d, which a container declares", at.Port()), w.m.World.Of(p, ""))
			return h.end(v)
		}
		known = append(known, strconv.Itoa(int(c.ContainerPort)))
	}
	if len(known) == 0 {
		h.add("port", fmt.Sprintf("%d; the containers declare none", at.Port()), w.m.World.Of(p, ""))
		return h.end(v)
	}
	h.add("port", fmt.Sprintf("%d, but the containers declare %s", at.Port(), strings.Join(known, ", ")), w.m.World.Of(p, "spec.containers"))
	v.Outcome = Broken
	v.Cause = fmt.Sprintf("the mesh lets it pass, but no container of %s/%s declares port %d (they declare %s): most likely nobody listens there",
		local.Namespace, local.Name, at.Port(), strings.Join(known, ", "))
	v.Remedy = "let the port lead to one of " + strings.Join(known, ", ") + ", or declare the container's port if it does listen there"
	if ref := w.targetPortRef(local); ref != nil {
		v = v.about(ref)
	}
	return h.end(v.about(w.m.World.Of(p, "spec.containers")))
}

// targetPortRef is where the port of the pods is written.
func (w *walk) targetPortRef(local *l4.Workload) *Ref {
	if w.to == nil {
		return nil
	}
	services := []*ambient.Service{w.m.service(w.to.service)}
	for _, b := range local.Services {
		services = append(services, w.m.services[b.Service.String()])
	}
	for _, s := range services {
		if s == nil || s.Entry != "" {
			continue
		}
		for i, p := range s.Proto.Ports {
			if uint16(p.ServicePort) == w.to.port {
				return w.m.serviceRef(s, w.portField(s, i)+".targetPort")
			}
		}
	}
	return nil
}

// portField is the path of a port in its Service: those of UDP are not in the translation.
func (w *walk) portField(s *ambient.Service, at int) string {
	svc := object[*corev1.Service](w.m, "Service", s.Proto.Namespace, s.Proto.Name)
	if svc != nil {
		for i, p := range svc.Spec.Ports {
			if uint32(p.Port) == s.Proto.Ports[at].ServicePort && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) {
				return fmt.Sprintf("spec.ports[%d]", i)
			}
		}
	}
	return "spec.ports"
}
