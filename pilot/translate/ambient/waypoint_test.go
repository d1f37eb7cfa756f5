package ambient

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func TestAHostnameOfAWaypointCountsBeforeItsAddresses(t *testing.T) {
	ip, name := gatewayv1.IPAddressType, gatewayv1.HostnameAddressType
	gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "w"}}
	gw.Spec.GatewayClassName = waypointClass
	if w := NewWaypoint(Mesh{}, gw, nil); w.Address != nil {
		t.Errorf("without a status: %v", w.Address)
	}
	gw.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Type: &ip, Value: "no"}, {Type: &ip, Value: "10.96.0.9"}, {Type: &ip, Value: "10.96.0.10"}}
	if w := NewWaypoint(Mesh{}, gw, nil); string(w.Address.GetAddress().GetAddress()) != "\x0a\x60\x00\x09" {
		t.Errorf("with addresses: %v", w.Address)
	}
	gw.Status.Addresses = append(gw.Status.Addresses, gatewayv1.GatewayStatusAddress{Type: &name, Value: "w.a.svc.cluster.local"})
	if w := NewWaypoint(Mesh{}, gw, nil); w.Address.GetHostname().GetHostname() != "w.a.svc.cluster.local" {
		t.Errorf("with a hostname: %v", w.Address)
	}
}

func TestNamespacesThatMayUseAWaypoint(t *testing.T) {
	namespace := func(name, team string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}
	for name, c := range map[string]struct {
		from gatewayv1.FromNamespaces
		ns   *corev1.Namespace
		want bool
	}{
		"its own":                                {gatewayv1.NamespacesFromSame, namespace("a", ""), true},
		"another":                                {gatewayv1.NamespacesFromSame, namespace("b", ""), false},
		"another, of all":                        {gatewayv1.NamespacesFromAll, namespace("b", ""), true},
		"another that is selected":               {gatewayv1.NamespacesFromSelector, namespace("b", "red"), true},
		"another that is not":                    {gatewayv1.NamespacesFromSelector, namespace("b", "blue"), false},
		"its own that is selected":               {gatewayv1.NamespacesFromSelector, namespace("a", "red"), true},
		"its own that is not selected is no way": {gatewayv1.NamespacesFromSelector, namespace("a", "blue"), false},
	} {
		w := &Waypoint{Namespace: "a", Name: "w", From: c.from, Selector: selector}
		if got := w.allows(c.ns.Name, c.ns); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if (&Waypoint{Namespace: "a", From: gatewayv1.NamespacesFromSelector, Selector: selector}).allows("b", nil) {
		t.Error("a namespace that nothing is known of may use it")
	}
}
