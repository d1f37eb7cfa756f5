package probe_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/probe"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

func TestTheTunnelShowsThePodsIdentity(t *testing.T) {
	pod, router := nettest.New(t), nettest.New(t)
	nettest.Link(t, pod, router, []string{"10.5.0.2/24"}, []string{"10.5.0.1/24"})
	ip := netip.MustParseAddr("10.5.0.2")
	ask := func(account string) error { return probe.Tunnel(t.Context(), pod, ip, "shop", account) }
	if err := ask("web"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("nobody listens: %v", err)
	}
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.Issue(context.Background(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"})
	if err != nil {
		t.Fatal(err)
	}
	go serve(nettest.Listen(t, pod, ":15008"), certs.HBONEServerConfig(func() (*certs.Workload, error) { return own, nil }))
	if err := ask("web"); err != nil {
		t.Error(err)
	}
	if err := ask("other"); err == nil || !strings.Contains(err.Error(), "spiffe://cluster.local/ns/shop/sa/web") {
		t.Errorf("another pod's tunnel: %v", err)
	}
}

// serve takes connections the way a node proxy does, until ln closes.
func serve(ln net.Listener, config *tls.Config) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = tls.Server(c, config).Handshake() // fails: the probe has no certificate
		}()
	}
}
