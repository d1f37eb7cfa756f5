package nodeagent

import (
	"cmp"
	"slices"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// strict tells whether a pod takes nothing but mutual TLS on a port. The narrowest policy that says something counts: the
// workload's for the port, the workload's, the namespace's, the mesh's (in the root namespace). Of several the oldest counts.
func strict(policies []*securityv1.PeerAuthentication, root string, pod *corev1.Pod, port uint16) bool {
	var workload, namespace, mesh []*securityv1.PeerAuthentication
	for _, p := range policies {
		selects := p.Spec.GetSelector().GetMatchLabels()
		switch {
		case p.Namespace == pod.Namespace && len(selects) > 0:
			if labels.SelectorFromSet(selects).Matches(labels.Set(pod.Labels)) {
				workload = append(workload, p)
			}
		case len(selects) > 0:
		case p.Namespace == root:
			mesh = append(mesh, p)
		case p.Namespace == pod.Namespace:
			namespace = append(namespace, p)
		}
	}
	if p := oldest(workload); p != nil {
		if m := p.Spec.GetPortLevelMtls()[uint32(port)].GetMode(); m != securityapi.PeerAuthentication_MutualTLS_UNSET {
			return m == securityapi.PeerAuthentication_MutualTLS_STRICT
		}
	}
	for _, level := range [][]*securityv1.PeerAuthentication{workload, namespace, mesh} {
		if p := oldest(level); p != nil {
			if m := p.Spec.GetMtls().GetMode(); m != securityapi.PeerAuthentication_MutualTLS_UNSET {
				return m == securityapi.PeerAuthentication_MutualTLS_STRICT
			}
		}
	}
	return false
}

func oldest(policies []*securityv1.PeerAuthentication) *securityv1.PeerAuthentication {
	if len(policies) == 0 {
		return nil
	}
	return slices.MinFunc(policies, func(a, b *securityv1.PeerAuthentication) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}
