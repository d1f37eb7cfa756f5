package selftest

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/operator/crds"
)

// TestBlocks: a network policy that selects pods of the mesh has to let their port in.
func TestBlocks(t *testing.T) {
	t.Parallel()
	meshed := []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}}}}
	port := func(n int) *intstr.IntOrString { p := intstr.FromInt(n); return &p }
	end := int32(20000)
	rule := func(ports ...networkingv1.NetworkPolicyPort) []networkingv1.NetworkPolicyIngressRule {
		return []networkingv1.NetworkPolicyIngressRule{{Ports: ports}}
	}
	ingress, egress := networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	for name, c := range map[string]struct {
		spec networkingv1.NetworkPolicySpec
		want bool
	}{
		"all closed":     {networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{ingress}}, true},
		"egress only":    {networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{egress}}, false},
		"another port":   {networkingv1.NetworkPolicySpec{Ingress: rule(networkingv1.NetworkPolicyPort{Port: port(80)})}, true},
		"the port":       {networkingv1.NetworkPolicySpec{Ingress: rule(networkingv1.NetworkPolicyPort{Port: port(15008)})}, false},
		"a range":        {networkingv1.NetworkPolicySpec{Ingress: rule(networkingv1.NetworkPolicyPort{Port: port(15000), EndPort: &end})}, false},
		"all ports":      {networkingv1.NetworkPolicySpec{Ingress: rule()}, false},
		"other pods":     {networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}}, false},
		"the pods by it": {networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}, true},
	} {
		if got := blocks(&networkingv1.NetworkPolicy{Spec: c.spec}, meshed); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestOlderKernel(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"5.3.0": true, "5.4.0-1-generic": false, "6.18.1": false, "4.19.0-rc1": true, "5.4-lts": false, "strange": false} {
		if got := olderKernel(version, 5, 4); got != want {
			t.Errorf("%s: %t", version, got)
		}
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	if v := bundleVersion(string(crds.GatewayAPI)); len(v) < 5 || v[0] != 'v' {
		t.Errorf("version %q of the definitions of the Gateway API", v)
	}
	if !expires([]byte("none"), time.Now()) {
		t.Error("what is no certificate is valid")
	}
	if got := few([]string{"f", "e", "d", "c", "b", "a"}); got != "a, b, c, d, e and 1 more" {
		t.Error(got)
	}
}
