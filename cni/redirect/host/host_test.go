package host_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect/host"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// seen returns the address that the pod sees a connection of ns come from.
func seen(t *testing.T, connect func() (string, error)) string {
	t.Helper()
	text, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOnlyTheNodesOwnProbesAreRewritten(t *testing.T) {
	node, pod := nettest.New(t), nettest.New(t)
	nettest.Link(t, pod, node, []string{"10.5.0.2/24", "fd05::2/64"}, []string{"10.5.0.1/24", "fd05::1/64"})
	nettest.Serve(nettest.Listen(t, pod, "0.0.0.0:8080"), "pod")
	nettest.Serve(nettest.Listen(t, pod, "[::]:8081"), "pod")
	rules := host.New(node, plan.DefaultConfig())
	if err := rules.Install(nil); err != nil {
		t.Fatal(err)
	}
	dial := func(addr string) func() (string, error) {
		return func() (string, error) {
			return nettest.Read(nettest.Dial(t, node, "tcp", addr, nettest.Socket{}))
		}
	}
	if got := seen(t, dial("10.5.0.2:8080")); !strings.Contains(got, "10.5.0.1") {
		t.Errorf("a pod that is not enrolled sees %q", got)
	}
	addrs := []netip.Addr{netip.MustParseAddr("10.5.0.2"), netip.MustParseAddr("fd05::2")}
	if err := rules.Add(addrs); err != nil {
		t.Fatal(err)
	}
	if got := seen(t, dial("10.5.0.2:8080")); !strings.Contains(got, "169.254.7.127") {
		t.Errorf("an enrolled pod sees %q", got)
	}
	if got := seen(t, dial("[fd05::2]:8081")); !strings.Contains(got, "fd16:9254:7127:1337:ffff:ffff:ffff:ffff") {
		t.Errorf("an enrolled pod sees %q over IPv6", got)
	}
	for range 2 {
		if err := rules.Remove(addrs); err != nil {
			t.Fatal(err)
		}
	}
	if got := seen(t, dial("10.5.0.2:8080")); !strings.Contains(got, "10.5.0.1") {
		t.Errorf("a pod that is enrolled no more sees %q", got)
	}
	if err := rules.Purge(); err != nil {
		t.Fatal(err)
	}
}
