package why

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// networkPolicyBlock is a NetworkPolicy that keeps a connection from being made.
type networkPolicyBlock struct {
	policies []*networkingv1.NetworkPolicy
	egress   bool
}

// end is one end of a connection: a pod, or else an address.
type end struct {
	pod     *corev1.Pod
	address netip.Addr
}

// blocked is whether NetworkPolicies keep a connection to a port from being made; nil when they do not. The network enforces them, not
// the mesh: a tunnel is a connection to port 15008 for them.
func (m *Model) blocked(from, to end, port uint16) *networkPolicyBlock {
	for _, side := range []struct {
		egress      bool
		kind        networkingv1.PolicyType
		self, other end
	}{{true, networkingv1.PolicyTypeEgress, from, to}, {false, networkingv1.PolicyTypeIngress, to, from}} {
		if side.self.pod == nil || side.self.pod.Spec.HostNetwork {
			continue
		}
		var isolating []*networkingv1.NetworkPolicy
		permitted := false
		for _, p := range m.World.NetworkPolicies {
			if p.Namespace != side.self.pod.Namespace || !matchesSelector(&p.Spec.PodSelector, side.self.pod.Labels) || !has(p, side.kind) {
				continue
			}
			isolating = append(isolating, p)
			permitted = permitted || m.permits(p, side.egress, side.other, to.pod, port)
		}
		if len(isolating) > 0 && !permitted {
			return &networkPolicyBlock{isolating, side.egress}
		}
	}
	return nil
}

// has is whether the policy is about a direction: by what it says, or else by what it has.
func has(p *networkingv1.NetworkPolicy, kind networkingv1.PolicyType) bool {
	if len(p.Spec.PolicyTypes) > 0 {
		return slices.Contains(p.Spec.PolicyTypes, kind)
	}
	return kind == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
}

func (m *Model) permits(p *networkingv1.NetworkPolicy, egress bool, other end, server *corev1.Pod, port uint16) bool {
	if egress {
		return slices.ContainsFunc(p.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool {
			return m.peers(p.Namespace, r.To, other) && portsInclude(r.Ports, server, port)
		})
	}
	return slices.ContainsFunc(p.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool {
		return m.peers(p.Namespace, r.From, other) && portsInclude(r.Ports, server, port)
	})
}

func (m *Model) peers(namespace string, list []networkingv1.NetworkPolicyPeer, other end) bool {
	if len(list) == 0 {
		return true
	}
	return slices.ContainsFunc(list, func(peer networkingv1.NetworkPolicyPeer) bool {
		if b := peer.IPBlock; b != nil {
			return inBlock(b, other.address)
		}
		if other.pod == nil {
			return false
		}
		if peer.NamespaceSelector == nil {
			return other.pod.Namespace == namespace && (peer.PodSelector == nil || matchesSelector(peer.PodSelector, other.pod.Labels))
		}
		var set map[string]string
		if ns := m.namespace(other.pod.Namespace); ns != nil {
			set = ns.Labels
		}
		return matchesSelector(peer.NamespaceSelector, set) && (peer.PodSelector == nil || matchesSelector(peer.PodSelector, other.pod.Labels))
	})
}

func inBlock(b *networkingv1.IPBlock, ip netip.Addr) bool {
	in := func(text string) bool {
		p, err := netip.ParsePrefix(text)
		return err == nil && p.Contains(ip)
	}
	return in(b.CIDR) && !slices.ContainsFunc(b.Except, in)
}

func portsInclude(list []networkingv1.NetworkPolicyPort, server *corev1.Pod, port uint16) bool {
	if len(list) == 0 {
		return true
	}
	return slices.ContainsFunc(list, func(p networkingv1.NetworkPolicyPort) bool {
		if p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
			return false
		}
		if p.Port == nil {
			return true
		}
		if p.Port.StrVal != "" {
			return server != nil && slices.ContainsFunc(containerPorts(server), func(c corev1.ContainerPort) bool {
				return c.Name == p.Port.StrVal && uint16(c.ContainerPort) == port
			})
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		return int32(port) >= p.Port.IntVal && int32(port) <= last
	})
}

// matchesSelector is whether a selector matches labels; an empty one matches everything.
func matchesSelector(s *metav1.LabelSelector, set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(set))
}

// blockedVerdict says what NetworkPolicies do to a connection, if they are in its way. plain is the port that it would have without a
// tunnel, 0 for one that has none.
func (w *walk) blockedVerdict(h *Hop, from, to end, port, plain uint16) *Verdict {
	b := w.m.blocked(from, to, port)
	if b == nil {
		return nil
	}
	direction, field := "into", "spec.ingress"
	if b.egress {
		direction, field = "out of", "spec.egress"
	}
	v := &Verdict{Outcome: Denied}
	for _, p := range b.policies {
		v.Refs = append(v.Refs, w.m.World.Ref("NetworkPolicy", p.Namespace, p.Name, field))
	}
	name := b.policies[0].Namespace + "/" + b.policies[0].Name
	v.Cause = fmt.Sprintf("NetworkPolicy %s does not let TCP port %d %s the pod", name, port, direction)
	v.Remedy = fmt.Sprintf("permit TCP port %d in %s of NetworkPolicy %s", port, field, name)
	if port == hbonePort {
		v.Cause += ", and the mesh's tunnels (HBONE) come to that port"
		if plain != 0 && w.m.blocked(from, to, plain) == nil {
			v.Outcome = Broken
			v.Cause += fmt.Sprintf("; port %d, which the policy permits, is inside of the tunnel", plain)
		}
	}
	h.add("network", v.Cause, v.Refs[0])
	return v
}
