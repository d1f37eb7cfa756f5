package host_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect/host"
	"github.com/isthmus-mesh/isthmus/cni/redirect/iptables"
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

// rules are what both kinds have in common.
type rules interface {
	Install(pods []netip.Addr) error
	Add(pod []netip.Addr) error
	Remove(pod []netip.Addr) error
	Purge() error
}

func byIPTables(kind string) func(*testing.T, *os.File) rules {
	return func(t *testing.T, ns *os.File) rules {
		t.Helper()
		tool, err := iptables.Find(kind, nil, filepath.Join(t.TempDir(), "lock"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := host.NewIPTables(ns, tool, plan.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func TestOnlyTheNodesOwnProbesAreRewritten(t *testing.T) {
	for name, make := range map[string]func(*testing.T, *os.File) rules{
		"nft":             func(_ *testing.T, ns *os.File) rules { return host.New(ns, plan.DefaultConfig()) },
		"iptables-nft":    byIPTables(iptables.NFT),
		"iptables-legacy": byIPTables(iptables.Legacy),
	} {
		t.Run(name, func(t *testing.T) {
			node := nettest.New(t)
			probesAreRewritten(t, node, make(t, node))
		})
	}
}

func probesAreRewritten(t *testing.T, node *os.File, rules rules) {
	t.Helper()
	pod := nettest.New(t)
	nettest.Link(t, pod, node, []string{"10.5.0.2/24", "fd05::2/64"}, []string{"10.5.0.1/24", "fd05::1/64"})
	nettest.Serve(nettest.Listen(t, pod, "0.0.0.0:8080"), "pod")
	nettest.Serve(nettest.Listen(t, pod, "[::]:8081"), "pod")
	for range 2 {
		if err := rules.Install(nil); err != nil {
			t.Fatal(err)
		}
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
	for range 2 {
		if err := rules.Add(addrs); err != nil {
			t.Fatal(err)
		}
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
	if err := rules.Install(addrs); err != nil {
		t.Fatal(err)
	}
	if got := seen(t, dial("10.5.0.2:8080")); !strings.Contains(got, "169.254.7.127") {
		t.Errorf("a pod that was there at the start sees %q", got)
	}
	for range 2 {
		if err := rules.Purge(); err != nil {
			t.Fatal(err)
		}
	}
	if got := seen(t, dial("10.5.0.2:8080")); !strings.Contains(got, "10.5.0.1") {
		t.Errorf("after the end, a pod sees %q", got)
	}
}
