package describe

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Node is what the proxy of a pod's node says.
type Node struct {
	// Ztunnel is its pod's name; empty when none runs.
	Ztunnel string
	Ready   bool
	// Asked is whether it has answered; Problem why not.
	Asked   bool
	Problem string
	// Knows is whether it has the pod's workload, and Protocol, Waypoint what it has of it.
	Knows              bool
	Protocol, Waypoint string
}

// Pod describes a pod. ignoreUnmeshed leaves out that it is not in the mesh.
func (m *Mesh) Pod(w io.Writer, namespace, name string, node Node, ignoreUnmeshed bool) error {
	pod := m.pod(namespace, name)
	if pod == nil {
		return fmt.Errorf("there is no pod %s in namespace %s", name, namespace)
	}
	p := &printer{w: w}
	p.line(0, "Pod: %s", pod.Name)
	p.line(1, "Pod Revision: %s", cmp.Or(pod.Labels[labelRevision], namespaceLabel(m, namespace, labelRevision), "default"))
	p.line(1, "Pod Ports: %s", ports(pod))
	if pod.Status.Phase != corev1.PodRunning {
		p.line(1, "Pod is not %s (%s)", corev1.PodRunning, pod.Status.Phase)
	} else if !ready(pod) {
		p.line(1, "WARNING: the pod is not ready, so nothing is sent to it by its services' names")
	}
	known := m.workload(pod)
	m.enrolment(p, pod, known, node, ignoreUnmeshed)
	var its []*corev1.Service
	for _, s := range m.services {
		if selects(s, pod) {
			its = append(its, s)
		}
	}
	p.rule()
	if len(its) == 0 {
		p.line(0, "No service selects the pod")
	}
	for _, s := range its {
		m.describeService(p, s, pod)
	}
	p.rule()
	if inMesh(known) {
		m.peerAuthentication(p, pod)
		m.authorization(p, pod, known, its)
	} else {
		p.line(0, "Neither PeerAuthentication nor AuthorizationPolicy has an effect on the pod")
	}
	for _, s := range its {
		m.exposure(p, s, pod)
	}
	return p.err
}

// inMesh is whether a proxy takes the connections to a pod.
func inMesh(known *ambient.Workload) bool {
	return known != nil && (known.Sidecar || known.Proto.GetTunnelProtocol() == workload.TunnelProtocol_HBONE)
}

func namespaceLabel(m *Mesh, namespace, label string) string {
	if ns := m.namespaces[namespace]; ns != nil {
		return ns.Labels[label]
	}
	return ""
}

func ports(pod *corev1.Pod) string {
	var out []string
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			protocol := ""
			if port.Protocol == corev1.ProtocolUDP {
				protocol = "/UDP"
			}
			out = append(out, fmt.Sprintf("%d%s (%s)", port.ContainerPort, protocol, c.Name))
		}
		if len(c.Ports) == 0 {
			out = append(out, c.Name)
		}
	}
	return strings.Join(out, ", ")
}

// enrolment says whether the pod is in the mesh, by what, and by which proxies.
func (m *Mesh) enrolment(p *printer, pod *corev1.Pod, known *ambient.Workload, node Node, ignoreUnmeshed bool) {
	asked := cmp.Or(pod.Labels[labelMode], namespaceLabel(m, pod.Namespace, labelMode))
	by := fmt.Sprintf("label %s of the pod", labelMode)
	if pod.Labels[labelMode] == "" {
		by = fmt.Sprintf("label %s of namespace %s", labelMode, pod.Namespace)
	}
	enrolled := known != nil && known.Proto.GetTunnelProtocol() == workload.TunnelProtocol_HBONE
	switch {
	case pod.Labels[labelGateway] != "" && enrolled:
		p.line(1, "Mesh: a proxy of Gateway %s/%s", pod.Namespace, pod.Labels[labelGateway])
	case pod.Spec.HostNetwork:
		p.line(1, "WARNING: the pod is not part of the mesh: it uses its node's network")
		return
	case known != nil && known.Sidecar:
		p.line(1, "Mesh: by a sidecar")
	case enrolled:
		p.line(1, "Mesh: ambient, by the %s", by)
	case asked == "ambient":
		p.line(1, "WARNING: the pod asks to be part of the mesh (%s) and is not yet: its annotation %s is %q", by, redirection, pod.Annotations[redirection])
		p.line(2, "Look at the CNI agent of node %s: istioctl check", pod.Spec.NodeName)
	case !ignoreUnmeshed:
		p.line(1, "WARNING: the pod is not part of the mesh")
		p.line(2, "Add it: kubectl label namespace %s %s=ambient", pod.Namespace, labelMode)
	}
	if known == nil {
		p.line(1, "WARNING: the pod has no address: proxies do not know it")
		return
	}
	if enrolled {
		p.line(1, "Identity: spiffe://%s/ns/%s/sa/%s", cmp.Or(known.Proto.GetTrustDomain(), "cluster.local"), pod.Namespace, cmp.Or(known.Proto.GetServiceAccount(), "default"))
		m.node(p, pod, node)
		m.binding(p, known.Binding, known.Proto.GetWaypoint() != nil, "to its address")
	}
}

// node says what the pod's node proxy thinks of it.
func (m *Mesh) node(p *printer, pod *corev1.Pod, node Node) {
	switch {
	case node.Ztunnel == "":
		p.line(1, "WARNING: no ztunnel runs on node %s: nothing reaches the pod through the mesh", pod.Spec.NodeName)
	case !node.Ready:
		p.line(1, "WARNING: ztunnel %s on node %s is not ready", node.Ztunnel, pod.Spec.NodeName)
	case !node.Asked:
		p.line(1, "Ztunnel: %s on node %s (does not answer: %s)", node.Ztunnel, pod.Spec.NodeName, node.Problem)
	case !node.Knows:
		p.line(1, "WARNING: ztunnel %s on node %s does not know the pod: is it connected? See istioctl proxy-status", node.Ztunnel, pod.Spec.NodeName)
	case node.Protocol != "HBONE":
		p.line(1, "WARNING: ztunnel %s on node %s takes the pod for one outside the mesh (protocol %s): its configuration is old; see istioctl proxy-status", node.Ztunnel, pod.Spec.NodeName, node.Protocol)
	default:
		p.line(1, "Ztunnel: %s on node %s", node.Ztunnel, pod.Spec.NodeName)
	}
}

// binding says which waypoint something asks for, and what came of it.
func (m *Mesh) binding(p *printer, b ambient.Binding, used bool, to string) {
	switch {
	case b.Waypoint != "" && b.Reason == ambient.ReasonUnsupportedTraffic:
		p.line(1, "Waypoint for traffic %s: None (%s is not for it)", to, b.Waypoint)
	case b.Waypoint == "":
		p.line(1, "Waypoint for traffic %s: None", to)
	case !used:
		p.line(1, "WARNING: waypoint %s is asked for traffic %s, and not used: %s%s", b.Waypoint, to, b.Reason, m.remedy(b.Waypoint))
	default:
		p.line(1, "Waypoint for traffic %s: %s%s", to, b.Waypoint, m.waypointState(b.Waypoint))
	}
}

func (m *Mesh) remedy(waypoint string) string {
	namespace, name, _ := strings.Cut(waypoint, "/")
	for _, g := range m.gateways {
		if g.Namespace == namespace && g.Name == name {
			return fmt.Sprintf(" (look: istioctl waypoint status %s -n %s)", name, namespace)
		}
	}
	return fmt.Sprintf(" (there is no such Gateway; make it: istioctl waypoint apply --name %s -n %s)", name, namespace)
}

// waypointState says whether a waypoint serves.
func (m *Mesh) waypointState(waypoint string) string {
	namespace, name, _ := strings.Cut(waypoint, "/")
	all, serving := 0, 0
	for _, pod := range m.pods {
		if pod.Namespace == namespace && pod.Labels[labelGateway] == name && pod.DeletionTimestamp == nil {
			all++
			if ready(pod) {
				serving++
			}
		}
	}
	state := fmt.Sprintf(" (%d of %d pods ready", serving, all)
	if serving == 0 {
		state += ": NOTHING PASSES IT"
	}
	return state + ")"
}

// peerAuthentication says whether the pod takes plaintext, and who says so.
func (m *Mesh) peerAuthentication(p *printer, pod *corev1.Pod) {
	root, ns, own := ambient.PeerAuthenticationsOf(m.control.Settings(), m.peers, pod.Namespace, pod.Labels)
	mode := "PERMISSIVE"
	var applied []string
	ports := map[uint32]string{}
	for _, one := range []*securityv1.PeerAuthentication{root, ns, own} {
		if one == nil {
			continue
		}
		applied = append(applied, one.Name+"."+one.Namespace)
		if set := one.Spec.GetMtls().GetMode(); set != securityapi.PeerAuthentication_MutualTLS_UNSET {
			mode = set.String()
		}
	}
	if own != nil {
		for port, set := range own.Spec.GetPortLevelMtls() {
			ports[port] = set.GetMode().String()
		}
	}
	p.line(0, "Effective PeerAuthentication:")
	p.line(1, "Workload mTLS mode: %s", mode)
	for _, port := range sorted(ports) {
		p.line(1, "Port %d: %s", port, ports[port])
	}
	if len(applied) > 0 {
		p.line(1, "Applied PeerAuthentication:")
		p.line(2, "%s", strings.Join(applied, ", "))
	}
}

// authorization says which policies are enforced, and where.
func (m *Mesh) authorization(p *printer, pod *corev1.Pod, known *ambient.Workload, its []*corev1.Service) {
	p.line(0, "Authorization:")
	found := false
	for _, one := range m.policiesAtNode(pod, known) {
		found = true
		p.line(1, "at ztunnel: %s", one)
	}
	told := map[string]bool{}
	for _, s := range its {
		if know := m.known(s); know != nil && know.Proto.GetWaypoint() != nil && !told[know.Binding.Waypoint] {
			told[know.Binding.Waypoint] = true
			for _, one := range m.policiesAtWaypoint(know.Binding.Waypoint, s) {
				found = true
				p.line(1, "at waypoint %s: %s", know.Binding.Waypoint, one)
			}
		}
	}
	if !found {
		p.line(1, "no policy: everybody may connect whom PeerAuthentication lets")
	}
}

// policiesAtNode are those that the pod's ztunnel enforces.
func (m *Mesh) policiesAtNode(pod *corev1.Pod, known *ambient.Workload) []string {
	var out []string
	if known == nil || known.Proto.GetTunnelProtocol() != workload.TunnelProtocol_HBONE {
		return nil
	}
	for _, one := range m.control.Policies() {
		if one.Proto == nil {
			continue
		}
		var applies bool
		switch one.Proto.GetScope().String() {
		case "GLOBAL":
			applies = true
		case "NAMESPACE":
			applies = one.Namespace == pod.Namespace
		default:
			applies = slices.Contains(known.Proto.GetAuthorizationPolicies(), one.Key())
		}
		if !applies {
			continue
		}
		text := fmt.Sprintf("%s %s", one.Proto.GetAction(), one.Key())
		if !one.Status.Accepted && one.Status.Message != "" {
			text += " (WARNING: " + one.Status.Message + ")"
		}
		out = append(out, text)
	}
	return out
}

// special is what a policy does otherwise than others: it asks somebody, or is a dry run.
func (m *Mesh) special(one *securityv1.AuthorizationPolicy) string {
	if one.Annotations["istio.io/dry-run"] == "true" {
		return " (dry run: it only counts and logs)"
	}
	if one.Spec.GetAction() != securityapi.AuthorizationPolicy_CUSTOM {
		return ""
	}
	name := one.Spec.GetProvider().GetName()
	for _, p := range m.control.Config().GetExtensionProviders() {
		if p.GetName() != name {
			continue
		}
		if x := p.GetEnvoyExtAuthzGrpc(); x != nil {
			return fmt.Sprintf(" (asks %s at %s:%d by gRPC)", name, x.GetService(), x.GetPort())
		}
		if x := p.GetEnvoyExtAuthzHttp(); x != nil {
			return fmt.Sprintf(" (asks %s at %s:%d by HTTP)", name, x.GetService(), x.GetPort())
		}
	}
	return fmt.Sprintf(" (WARNING: the mesh configuration has no provider %q that can be asked: what it matches is denied)", name)
}

// policiesAtWaypoint are those that a waypoint enforces for a service.
func (m *Mesh) policiesAtWaypoint(waypoint string, s *corev1.Service) []string {
	namespace, name, _ := strings.Cut(waypoint, "/")
	var out []string
	for _, one := range policy.Attached(policy.Target{
		Proxy: policy.Waypoint, RootNamespace: m.control.Settings().RootNamespace, Namespace: namespace, Gateway: name,
		Services: []policy.ServiceRef{{Kind: policy.KindService, Namespace: s.Namespace, Name: s.Name}},
	}, m.policies) {
		out = append(out, fmt.Sprintf("%s %s/%s", one.Spec.GetAction(), one.Namespace, one.Name)+m.special(one))
	}
	return out
}
