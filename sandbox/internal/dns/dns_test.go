package dns

import (
	"slices"
	"strconv"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func records() *Records {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	yes, no, host, port, number, protocol := true, false, "db-0", "pg", int32(5432), corev1.ProtocolTCP
	return Build("cluster.local", []*corev1.Service{
		{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7", "fd00::7"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: protocol}}}},
		{ObjectMeta: meta("db"), Spec: corev1.ServiceSpec{ClusterIP: "None"}},
		{ObjectMeta: meta("away"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}},
	}, []*discoveryv1.EndpointSlice{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}},
		Ports:      []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &protocol}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.0.1"}, Hostname: &host, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
			{Addresses: []string{"10.244.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
			{Addresses: []string{"10.244.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		},
	}, {
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}},
		Ports:      []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &protocol}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}, Hostname: &host}},
	}})
}

func TestAnswers(t *testing.T) {
	r := records()
	for _, tt := range []struct {
		name  string
		kind  uint16
		want  []string
		rcode int
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.7"}, dns.RcodeSuccess},
		{"WEB.shop.svc.cluster.local.", dns.TypeAAAA, []string{"fd00::7"}, dns.RcodeSuccess},
		{"web.shop.svc.cluster.local.", dns.TypeMX, nil, dns.RcodeSuccess},
		{"db.shop.svc.cluster.local.", dns.TypeA, []string{"10.244.0.1", "10.244.0.2"}, dns.RcodeSuccess},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, []string{"10.244.0.1"}, dns.RcodeSuccess},
		{"db.shop.svc.cluster.local.", dns.TypeAAAA, []string{"fd00::1"}, dns.RcodeSuccess},
		{"10-244-0-2.db.shop.svc.cluster.local.", dns.TypeAAAA, nil, dns.RcodeSuccess},
		{"_pg._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, []string{"db-0.db.shop.svc.cluster.local.:5432", "10-244-0-2.db.shop.svc.cluster.local.:5432"}, dns.RcodeSuccess},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, []string{"web.shop.svc.cluster.local.:80"}, dns.RcodeSuccess},
		{"away.shop.svc.cluster.local.", dns.TypeA, []string{"example.org."}, dns.RcodeSuccess},
		{"shop.svc.cluster.local.", dns.TypeA, nil, dns.RcodeSuccess},
		{"none.shop.svc.cluster.local.", dns.TypeA, nil, dns.RcodeNameError},
		{"web.shop.svc.cluster.local.shop.svc.cluster.local.", dns.TypeA, nil, dns.RcodeNameError},
	} {
		response, own := r.Answer(new(dns.Msg).SetQuestion(tt.name, tt.kind))
		if !own || response.Rcode != tt.rcode || !slices.Equal(texts(response), tt.want) {
			t.Errorf("%s %s: %v %s, want %v %s", dns.TypeToString[tt.kind], tt.name, texts(response), dns.RcodeToString[response.Rcode], tt.want, dns.RcodeToString[tt.rcode])
		}
	}
	if _, own := r.Answer(new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); own {
		t.Error("a name of others was answered")
	}
}

func texts(m *dns.Msg) []string {
	var out []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		case *dns.CNAME:
			out = append(out, rr.Target)
		case *dns.SRV:
			out = append(out, rr.Target+":"+strconv.Itoa(int(rr.Port)))
		}
	}
	return out
}

func FuzzAnswer(f *testing.F) {
	r := records()
	packed, err := new(dns.Msg).SetQuestion("web.shop.svc.cluster.local.", dns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(_ *testing.T, packet []byte) {
		var query dns.Msg
		if query.Unpack(packet) == nil {
			r.Answer(&query)
		}
	})
}
