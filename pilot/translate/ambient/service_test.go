package ambient

import (
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

const distribution = "networking.istio.io/traffic-distribution"

func TestTrafficDistribution(t *testing.T) {
	text := func(lb *workload.LoadBalancing) string {
		if n := len(lb.GetRoutingPreference()); n > 0 {
			return lb.RoutingPreference[n-1].String()
		}
		return "any"
	}
	for name, c := range map[string]struct{ field, own, namespace, want string }{
		"the field counts before the annotation":              {"PreferClose", "PreferSameNode", "", "ZONE"},
		"a field that says nothing known leaves it to others": {"PreferWarm", "PreferSameNode", "", "NODE"},
		"the annotation counts before the namespace's":        {"", "PreferSameNode", "PreferClose", "NODE"},
		"case does not matter in annotations":                 {"", "prefersamezone", "", "ZONE"},
		"an annotation can undo the namespace's":              {"", "Any", "PreferClose", "any"},
		"the namespace's counts in the end":                   {"", "", "preferSameNode", "NODE"},
		"nothing":                                             {"", "", "", "any"},
	} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{distribution: c.namespace}}}
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{distribution: c.own}}}
		if c.field != "" {
			svc.Spec.TrafficDistribution = &c.field
		}
		if got := text(loadBalancing(svc, ns)); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if c.field != "" {
			continue
		}
		se := &networkingv1.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Annotations: svc.Annotations}}
		se.Spec.Hosts, se.Spec.Resolution = []string{"example.com"}, networkingapi.ServiceEntry_STATIC
		services := EntryServices(Mesh{}, se, ns, Waypoints{}, nil)
		if got := text(services[0].Proto.LoadBalancing); got != c.want {
			t.Errorf("%s, of a ServiceEntry: got %s, want %s", name, got, c.want)
		}
	}
}

func TestLoadBalancersThatWantToSeeConnectionsAreNoVirtualIPs(t *testing.T) {
	vip, proxy := corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy
	svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}, {IP: "192.0.2.2", IPMode: &vip}, {IP: "192.0.2.3", IPMode: &proxy}, {Hostname: "lb"}}
	got := virtualIPs(svc)
	if len(got) != 3 || got[0] != "10.96.0.1" || got[1] != "192.0.2.1" || got[2] != "192.0.2.2" {
		t.Errorf("got %v", got)
	}
}

func TestIngressUsesWaypoint(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{labelIngressUseWaypoint: "true"}}}
	for value, want := range map[string]bool{"true": true, "True": true, "1": true, "false": false, "yes": false, "": false} {
		if got := ingressUsesWaypoint(map[string]string{labelIngressUseWaypoint: value}, ns); got != want {
			t.Errorf("%q: got %v", value, got)
		}
	}
	if !ingressUsesWaypoint(nil, ns) {
		t.Error("the namespace's label does not count")
	}
}

func TestBlocksOfOneAddressAreAddresses(t *testing.T) {
	for text, length := range map[string]uint32{"10.0.0.1": 0, "10.0.0.1/32": 0, "fd00::1/128": 0, "10.0.0.1/24": 24} {
		a := networkAddress("", text)
		if a.GetLength() != length || (a.Length != nil) != (length > 0) {
			t.Errorf("%s: length is %v", text, a.Length)
		}
	}
	if networkAddress("", "no") != nil {
		t.Error("what is no address is one")
	}
}

func TestServicePortProtocol(t *testing.T) {
	declared := func(protocol string) *string { return &protocol }
	for _, c := range []struct {
		port corev1.ServicePort
		want workload.AppProtocol
	}{
		{corev1.ServicePort{Name: "http", Port: 80}, workload.AppProtocol_HTTP11},
		{corev1.ServicePort{Name: "HTTP2-web", Port: 80}, workload.AppProtocol_HTTP2},
		{corev1.ServicePort{Name: "grpc-web", Port: 80}, workload.AppProtocol_HTTP11},
		{corev1.ServicePort{Name: "grpc-web-x", Port: 80}, workload.AppProtocol_HTTP11},
		{corev1.ServicePort{Name: "grpc-x", Port: 80}, workload.AppProtocol_GRPC},
		{corev1.ServicePort{Name: "mysql", Port: 80}, workload.AppProtocol_TCP},
		{corev1.ServicePort{Name: "web", Port: 80}, workload.AppProtocol_UNKNOWN},
		{corev1.ServicePort{Name: "web", Port: 80, AppProtocol: declared("kubernetes.io/h2c")}, workload.AppProtocol_HTTP2},
		{corev1.ServicePort{Name: "http-web", Port: 80, AppProtocol: declared("tcp")}, workload.AppProtocol_TCP},
		// What the mesh does not know is not HTTP because of its name.
		{corev1.ServicePort{Name: "http-web", Port: 80, AppProtocol: declared("example.com/mine")}, workload.AppProtocol_UNKNOWN},
		{corev1.ServicePort{Name: "http-web", Port: 80, AppProtocol: declared("")}, workload.AppProtocol_HTTP11},
		// The servers of these speak first.
		{corev1.ServicePort{Name: "mail", Port: 25}, workload.AppProtocol_TCP},
		{corev1.ServicePort{Name: "db", Port: 3306}, workload.AppProtocol_TCP},
		{corev1.ServicePort{Name: "db", Port: 27017, AppProtocol: declared("example.com/mine")}, workload.AppProtocol_TCP},
		{corev1.ServicePort{Name: "http", Port: 53}, workload.AppProtocol_HTTP11},
	} {
		if got := servicePortProtocol(&c.port); got != c.want {
			t.Errorf("%+v: got %v, want %v", c.port, got, c.want)
		}
	}
}

func TestProtocolOfAnEntrysPortIsDeclared(t *testing.T) {
	for protocol, want := range map[string]workload.AppProtocol{
		"HTTP": workload.AppProtocol_HTTP11, "HTTPS": workload.AppProtocol_TLS, "MONGO": workload.AppProtocol_TCP, "": workload.AppProtocol_UNKNOWN,
	} {
		if got := entryPort(&networkingapi.ServicePort{Number: 80, Name: "http", Protocol: protocol}); got.AppProtocol != want {
			t.Errorf("%q: got %v, want %v", protocol, got.AppProtocol, want)
		}
	}
}
