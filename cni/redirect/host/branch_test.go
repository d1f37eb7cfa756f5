package host_test

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect/host"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

const (
	nodeV4, branchV4, plainV4 = "192.168.1.10", "192.168.2.50", "192.168.1.50"
	nodeV6, branchV6, plainV6 = "fd01::10", "fd02::50", "fd01::50"
	probeV4, probeV6          = "169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"
	branchTable               = 101
)

// cloud is a node whose network's plugin has given one pod an interface of its own in the cloud's network, which is the namespace
// vpc, and another pod the usual.
type cloud struct {
	node, vpc, branch, plain *os.File
	nodeLinks                *netlink.Handle
}

func newCloud(t *testing.T, earlyDemux string) *cloud {
	t.Helper()
	c := &cloud{node: nettest.New(t), vpc: nettest.New(t), branch: nettest.New(t), plain: nettest.New(t)}
	for _, ns := range []*os.File{c.node, c.vpc} {
		set(t, ns, "ipv4/ip_forward", "1")
		set(t, ns, "ipv6/conf/all/forwarding", "1")
		set(t, ns, "ipv6/conf/default/accept_dad", "0")
	}
	set(t, c.node, "ipv4/tcp_early_demux", earlyDemux)
	nettest.LinkAs(t, c.node, c.vpc, "eth0", "node", []string{nodeV4 + "/24", nodeV6 + "/64"}, []string{"192.168.1.1/24", "fd01::1/64"})
	nettest.LinkAs(t, c.vpc, c.node, "branch", "vlan1", []string{"192.168.2.1/24", "fd02::1/64"}, nil)
	nettest.LinkAs(t, c.branch, c.node, "eth0", "vlan1pod", []string{branchV4 + "/24", branchV6 + "/64"}, []string{"192.168.2.49/32", "fd02::49/128"})
	nettest.LinkAs(t, c.plain, c.node, "eth0", "plainpod", []string{plainV4 + "/24", plainV6 + "/64"}, []string{"192.168.1.49/32", "fd01::49/128"})
	for _, pod := range []*os.File{c.branch, c.plain} {
		nettest.Serve(nettest.Listen(t, pod, "0.0.0.0:8080"), "pod")
		nettest.Serve(nettest.Listen(t, pod, "[::]:8081"), "pod")
	}
	c.nodeLinks = open(t, c.node)
	c.lead(t)
	return c
}

// lead makes the routes and rules of the network's plugin, and the cloud's.
func (c *cloud) lead(t *testing.T) {
	t.Helper()
	vpc := open(t, c.vpc)
	uplink, pod, plain := index(t, c.nodeLinks, "vlan1"), index(t, c.nodeLinks, "vlan1pod"), index(t, c.nodeLinks, "plainpod")
	toNode, toBranch := index(t, vpc, "node"), index(t, vpc, "branch")
	vlan, err := c.nodeLinks.LinkByName("vlan1")
	must(t, err)
	for _, f := range []struct {
		family                                      int
		node, branch, plain, gateway, probe, within string
	}{
		{netlink.FAMILY_V4, nodeV4, branchV4, plainV4, "192.168.2.1", probeV4, "192.168.2.0/24"},
		{netlink.FAMILY_V6, nodeV6, branchV6, plainV6, "fd02::1", probeV6, "fd02::/64"},
	} {
		must(t, c.nodeLinks.RouteReplace(&netlink.Route{LinkIndex: uplink, Table: branchTable, Gw: net.ParseIP(f.gateway), Flags: int(netlink.FLAG_ONLINK), Family: f.family}))
		must(t, c.nodeLinks.RouteAdd(&netlink.Route{LinkIndex: pod, Table: branchTable, Dst: one(f.branch), Scope: netlink.SCOPE_LINK}))
		must(t, c.nodeLinks.RouteAdd(&netlink.Route{LinkIndex: plain, Dst: one(f.plain), Scope: netlink.SCOPE_LINK}))
		for _, iif := range []string{"vlan1", "vlan1pod"} {
			rule(t, c.nodeLinks, f.family, 10, func(r *netlink.Rule) { r.IifName, r.Table = iif, branchTable })
		}
		rule(t, c.nodeLinks, f.family, 512, func(r *netlink.Rule) { r.Dst, r.Table = one(f.plain), unix.RT_TABLE_MAIN })
		rule(t, c.nodeLinks, f.family, 20, func(r *netlink.Rule) { r.Table = unix.RT_TABLE_LOCAL })
		old := netlink.NewRule()
		old.Family, old.Priority, old.Table = f.family, 0, unix.RT_TABLE_LOCAL
		must(t, c.nodeLinks.RuleDel(old))

		// The cloud knows where the branch interface is, and refuses what comes with an address that it does not know. It says so, to
		// spare the test the wait for nothing.
		must(t, vpc.NeighSet(&netlink.Neigh{LinkIndex: toBranch, Family: f.family, State: netlink.NUD_PERMANENT, IP: net.ParseIP(f.branch), HardwareAddr: vlan.Attrs().HardwareAddr}))
		must(t, vpc.RouteAdd(&netlink.Route{LinkIndex: toNode, Dst: one(f.probe), Gw: net.ParseIP(f.node)}))
		rule(t, vpc, f.family, 100, func(r *netlink.Rule) { r.Src, r.IifName, r.Type = one(f.probe), "node", unix.FR_ACT_PROHIBIT })
	}
}

func open(t *testing.T, ns *os.File) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func set(t *testing.T, ns *os.File, name, value string) {
	t.Helper()
	nettest.Do(t, ns, func() error { return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0) })
}

func index(t *testing.T, h *netlink.Handle, name string) int {
	t.Helper()
	l, err := h.LinkByName(name)
	must(t, err)
	return l.Attrs().Index
}

func one(addr string) *net.IPNet {
	a := netip.MustParseAddr(addr)
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func rule(t *testing.T, h *netlink.Handle, family, priority int, edit func(*netlink.Rule)) {
	t.Helper()
	r := netlink.NewRule()
	r.Family, r.Priority = family, priority
	edit(r)
	must(t, h.RuleAdd(r))
}

// count is the number of the node's policy rules.
func (c *cloud) count(t *testing.T) int {
	t.Helper()
	n := 0
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := c.nodeLinks.RuleList(family)
		must(t, err)
		n += len(rules)
	}
	return n
}

// probe is what a pod answers to the node, or why it does not.
func (c *cloud) probe(addr string) string {
	conn, err := nettest.TryDial(c.node, "tcp", addr, nettest.Socket{})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	text, err := nettest.Read(conn)
	if err == nil {
		text, err = nettest.Exchange(conn, text)
	}
	if err != nil {
		return err.Error()
	}
	return text
}

func (c *cloud) probes(t *testing.T, when string, want map[string]string) {
	t.Helper()
	for addr, from := range want {
		got := c.probe(addr)
		if from == "" && !strings.Contains(got, "no route to host") && !strings.Contains(got, "permission denied") || !strings.Contains(got, from) {
			t.Errorf("%s: %s answers %q, want %q", when, addr, got, from)
		}
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range list {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func TestProbesOfPodsBehindBranchInterfaces(t *testing.T) {
	for _, earlyDemux := range []string{"0", "1"} {
		t.Run("early demux "+earlyDemux, func(t *testing.T) { branchProbes(t, newCloud(t, earlyDemux)) })
	}
}

func branchProbes(t *testing.T, c *cloud) {
	t.Helper()
	const b4, b6, p4, p6 = branchV4 + ":8080", "[" + branchV6 + "]:8081", plainV4 + ":8080", "[" + plainV6 + "]:8081"
	branch, plain := addrs(branchV4, branchV6), addrs(plainV4, plainV6)
	before := c.count(t)
	rules, ways := host.New(c.node, plan.DefaultConfig()), host.NewBranch(c.node, true, slog.New(slog.DiscardHandler))
	must(t, rules.Install(append(branch, plain...)))

	without := map[string]string{b4: "", b6: "", p4: probeV4, p6: probeV6}
	with := map[string]string{b4: probeV4, b6: probeV6, p4: probeV4, p6: probeV6}
	c.probes(t, "without", without)
	must(t, ways.Install(nil))
	must(t, ways.Add(plain))
	must(t, ways.Add(addrs("192.168.2.51", "fd02::51")))
	if n := c.count(t); n != before {
		t.Errorf("%d rules for pods that need none", n-before)
	}
	for range 2 {
		must(t, ways.Add(branch))
	}
	if n := c.count(t); n != before+4 {
		t.Errorf("%d rules for a pod, want 4", n-before)
	}
	c.probes(t, "with", with)
	must(t, ways.Remove(plain))
	c.probes(t, "another pod has gone", with)
	for range 2 {
		must(t, ways.Remove(branch))
	}
	if n := c.count(t); n != before {
		t.Errorf("%d rules are left of a pod that has gone", n-before)
	}
	c.probes(t, "gone", without)

	// The agent starts again: what is needed comes, what is not goes, and others' rules stay.
	for _, pods := range [][]netip.Addr{branch, branch, append(plain, branch...)} {
		must(t, ways.Install(pods))
		c.probes(t, "installed", with)
	}
	rule(t, c.nodeLinks, netlink.FAMILY_V4, 511, func(r *netlink.Rule) {
		r.Dst, r.IifName, r.Table, r.Protocol = one("192.168.2.99"), "lo", branchTable, 169
	})
	must(t, ways.Install(branch[:1]))
	if n := c.count(t); n != before+2 {
		t.Errorf("%d rules, want the 2 of one address", n-before)
	}
	must(t, host.NewBranch(c.node, false, slog.New(slog.DiscardHandler)).Install(nil))
	if n := c.count(t); n != before {
		t.Errorf("%d rules are left of pods that went while the agent was away", n-before)
	}
	must(t, ways.Add(branch))
	for range 2 {
		must(t, ways.Purge())
	}
	if n := c.count(t); n != before {
		t.Errorf("%d rules are left at the end", n-before)
	}
}

// The network's plugin has taken the pod's interface away before the pod is removed.
func TestABranchThatIsGoneLeavesNothing(t *testing.T) {
	c := newCloud(t, "0")
	ways := host.NewBranch(c.node, true, slog.New(slog.DiscardHandler))
	before := c.count(t)
	must(t, ways.Add(addrs(branchV4, branchV6)))
	link, err := c.nodeLinks.LinkByName("vlan1pod")
	must(t, err)
	must(t, c.nodeLinks.LinkDel(link))
	must(t, ways.Add(addrs(branchV4)))
	must(t, ways.Install(nil))
	if n := c.count(t); n != before {
		t.Errorf("%d rules are left", n-before)
	}
}

// A node of any other network is left as it is.
func TestANodeWithoutBranchesIsLeftAlone(t *testing.T) {
	node, pod := nettest.New(t), nettest.New(t)
	nettest.LinkAs(t, pod, node, "eth0", "veth1", []string{"10.5.0.2/24"}, []string{"10.5.0.1/24"})
	h := open(t, node)
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: index(t, h, "veth1"), Table: branchTable, Dst: one("10.5.0.2"), Scope: netlink.SCOPE_LINK}))
	// As in the cloud, but behind the rule for local addresses.
	rule(t, h, netlink.FAMILY_V4, 10, func(r *netlink.Rule) { r.IifName, r.Table = "veth1", branchTable })
	c := &cloud{node: node, nodeLinks: h}
	before := c.count(t)
	ways := host.NewBranch(node, true, slog.New(slog.DiscardHandler))
	must(t, ways.Install(addrs("10.5.0.2")))
	must(t, ways.Add(addrs("10.5.0.2", "fd05::2")))
	if n := c.count(t); n != before {
		t.Errorf("%d rules", n-before)
	}
}
