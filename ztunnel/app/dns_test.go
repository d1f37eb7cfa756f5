package app_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// TestTheFirstQueryWaitsForTheWorkload: a pod asks before the control plane has told of it, and is answered when it has.
func TestTheFirstQueryWaitsForTheWorkload(t *testing.T) {
	b := &bed{t: t, plane: newControlPlane(t), log: &podtest.Log{}, token: filepath.Join(t.TempDir(), "token")}
	if err := os.WriteFile(b.token, []byte("a-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := podtest.NewPair(t)
	b.plane.publish(l4.AddressType, "shop/web.shop.svc.cluster.local", &workload.Address{Type: &workload.Address_Service{Service: &workload.Service{
		Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local",
		Addresses: []*workload.NetworkAddress{{Address: netip.MustParseAddr("10.96.0.7").AsSlice()}},
	}}})
	b.startNode("node-a", newAgent(t, "client", pair.Client).socket).waitReady(t)

	raw, err := podtest.Open(t, pair.Client, 0).Dial(t.Context(), "udp", netip.MustParseAddrPort("127.0.0.1:15053"), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := &dns.Conn{Conn: raw}
	query := new(dns.Msg).SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
	if err := conn.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if answer, err := conn.ReadMsg(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("answered before the pod is known: %v, %v", answer, err)
	}
	b.plane.publishPod("client", podtest.ClientIP, "node-a")
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	answer, err := conn.ReadMsg()
	for err == nil && answer.Rcode == dns.RcodeServerFailure { // on a slow machine it has waited long enough before the pod was known
		if err = conn.WriteMsg(query); err == nil {
			answer, err = conn.ReadMsg()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Answer) != 1 || answer.Answer[0].(*dns.A).A.String() != "10.96.0.7" {
		t.Errorf("answer %v", answer)
	}
}
