package nat_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/nat"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

func objects() ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	port := func(name string, n int32, p corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: n, Protocol: p}
	}
	yes, no := true, false
	slice := func(service, portName string, number int32, protocol corev1.Protocol, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			Ports:      []discoveryv1.EndpointPort{{Name: &portName, Port: &number, Protocol: &protocol}}, Endpoints: endpoints,
		}
	}
	ready := func(ip string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}
	}
	ending := discoveryv1.Endpoint{Addresses: []string{"10.244.1.9"}, Conditions: discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}}
	services := []*corev1.Service{
		{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7", "fd00:10:96::7"}, Ports: []corev1.ServicePort{port("http", 80, "TCP")}}},
		{ObjectMeta: meta("dns"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8", ClusterIPs: []string{"10.96.0.8"}, Ports: []corev1.ServicePort{port("udp", 53, "UDP")}}},
		{ObjectMeta: meta("ending"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"}, Ports: []corev1.ServicePort{{Name: "a", Port: 80, Protocol: "TCP", NodePort: 30080}}}},
		{ObjectMeta: meta("nobody"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"}, Ports: []corev1.ServicePort{port("a", 80, "TCP"), port("b", 53, "UDP")}}},
		{ObjectMeta: meta("headless"), Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{port("a", 80, "TCP")}}},
		{ObjectMeta: meta("away"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}},
	}
	slices := []*discoveryv1.EndpointSlice{
		slice("web", "http", 8080, "TCP", ready("10.244.2.3"), ready("10.244.1.2"), ending), slice("web", "http", 8080, "TCP", ready("fd00:10:244:1::2")),
		slice("dns", "udp", 5353, "UDP", ready("10.244.1.2")), slice("ending", "a", 8080, "TCP", ending),
	}
	return services, slices
}

func rules() string {
	services, slices := objects()
	return nat.Rules(nat.Node{Name: "node-1", Addresses: []netip.Addr{netip.MustParseAddr("192.168.240.11"), netip.MustParseAddr("fd00:192::b")}}, services, slices)
}

func TestRules(t *testing.T) {
	got := rules()
	for _, want := range []string{
		"ip daddr 10.96.0.7 tcp dport 80 dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.3 . 8080 }",
		"ip6 daddr fd00:10:96::7 tcp dport 80 dnat ip6 to numgen random mod 1 map { 0 : fd00:10:244:1::2 . 8080 }",
		"ip daddr 10.96.0.8 udp dport 53 dnat ip to numgen random mod 1 map { 0 : 10.244.1.2 . 5353 }",
		"ip daddr 10.96.0.9 tcp dport 80 dnat ip to numgen random mod 1 map { 0 : 10.244.1.9 . 8080 }",
		"ip daddr 192.168.240.11 tcp dport 30080 meta mark set meta mark or 0x4000 dnat ip",
		"meta mark and 0x4000 == 0x4000 masquerade",
		"ip6 daddr fd00:192::b tcp dport 30080 reject with tcp reset",
		"ip daddr 10.96.0.10 tcp dport 80 reject with tcp reset",
		"ip daddr 10.96.0.10 udp dport 53 reject with icmpx port-unreachable",
		"ip saddr 10.244.1.2 ip daddr 10.244.1.2 masquerade",
	} {
		if !strings.Contains(got, "  "+want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	if again := rules(); again != got {
		t.Error("equal inputs give different tables")
	}
}

func TestTheKernelTakesThem(t *testing.T) {
	pin := filepath.Join(t.TempDir(), "net")
	node, err := ns.NewNet(pin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		node.Close()
		if err := ns.Unpin(pin); err != nil {
			t.Error(err)
		}
		_ = os.Remove(pin)
	})
	for _, text := range []string{rules(), rules(), nat.Rules(nat.Node{}, nil, nil)} {
		if err := nat.Apply(t.Context(), node, text); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
}
