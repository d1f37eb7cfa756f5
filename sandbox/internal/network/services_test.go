package network_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/nat"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// reach connects from a network namespace, and waits for the other end to close: only an answer is proof of a way back.
func reach(ctx context.Context, from *os.File, to string) error {
	return ns.Set{Net: from}.Do(func() error {
		conn, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "tcp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, conn)
		return err
	})
}

// TestServicesFromEverywhere reaches Services by their addresses and by the ports of both nodes, wherever the caller and
// the endpoint are.
func TestServicesFromEverywhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	nodes := twoNodes(t)
	client, _ := addPod(ctx, t, nodes[0], "client")
	near, nearIPs := addPod(ctx, t, nodes[0], "near")
	_, farIPs := addPod(ctx, t, nodes[1], "far")
	name, number, tcp, yes := "http", int32(8080), corev1.ProtocolTCP, true
	service := func(name, ip string, nodePort int32) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "s", Name: name}, Spec: corev1.ServiceSpec{
			ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, NodePort: nodePort, Protocol: tcp}},
		}}
	}
	slice := func(service string, ip netip.Addr) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "s", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: &tcp}},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}},
		}
	}
	services := []*corev1.Service{service("near", "10.96.0.40", 30040), service("far", "10.96.0.41", 30041)}
	slices := []*discoveryv1.EndpointSlice{slice("near", nearIPs[0]), slice("far", farIPs[0])}
	for _, n := range nodes {
		rules := nat.Rules(nat.Node{Name: n.Name, Addresses: []netip.Addr{n.Addr4.Addr(), n.Addr6.Addr()}}, services, slices)
		if err := nat.Apply(ctx, n.Net, rules); err != nil {
			t.Fatal(err)
		}
	}
	here, there := nodes[0].Addr4.Addr().String(), nodes[1].Addr4.Addr().String()
	for _, from := range []struct {
		name string
		net  *os.File
	}{{"a pod", client}, {"the endpoint itself", near}, {"its node", nodes[0].Net}, {"the other node", nodes[1].Net}} {
		for _, to := range []string{"10.96.0.40:80", "10.96.0.41:80", here + ":30040", here + ":30041", there + ":30040", there + ":30041"} {
			if err := reach(ctx, from.net, to); err != nil {
				t.Errorf("from %s to %s: %v", from.name, to, err)
			}
		}
	}
}
