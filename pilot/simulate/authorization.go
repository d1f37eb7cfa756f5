package simulate

import (
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// WrittenRule returns the index, in the object, of a rule of the policy that ztunnel has of it: rules that have no effect there are not
// sent. It is -1 when there is no such rule.
func (m *Mesh) WrittenRule(ap *securityv1.AuthorizationPolicy, sent int) int {
	for i, n := 0, 0; i < len(ap.Spec.GetRules()); i++ {
		if !m.ruleIsSent(ap, i) {
			continue
		}
		if n == sent {
			return i
		}
		n++
	}
	return -1
}

// UnsentRules are the indexes of rules that have no effect at ztunnel.
func (m *Mesh) UnsentRules(ap *securityv1.AuthorizationPolicy) (out []int) {
	for i := range ap.Spec.GetRules() {
		if !m.ruleIsSent(ap, i) {
			out = append(out, i)
		}
	}
	return out
}

func (m *Mesh) ruleIsSent(ap *securityv1.AuthorizationPolicy, i int) bool {
	one := ap.DeepCopy()
	one.Spec.Rules = []*securityapi.Rule{ap.Spec.GetRules()[i]}
	p := ambient.AuthorizationPolicy(m.mesh, one)
	return p.Proto != nil && len(p.Proto.GetRules()) > 0
}
