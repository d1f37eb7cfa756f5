package app

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/nodeagent"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// What the rules do is tested where they are made (cni/redirect/host); here, that they come, and go with the setting.
func TestWaysToBranchInterfacesGoByTheSetting(t *testing.T) {
	const table, pod = 101, "10.5.0.2"
	node := nettest.New(t)
	nettest.LinkAs(t, nettest.New(t), node, "eth0", "vlan1", []string{pod + "/24"}, []string{"10.5.0.1/24"})
	h, err := netlink.NewHandleAt(vns.NsHandle(node.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	link, err := h.LinkByName("vlan1")
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Table: table, Dst: &net.IPNet{IP: net.ParseIP(pod).To4(), Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}
	if err := h.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	at := func(priority, table int, iif string) *netlink.Rule {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table, r.IifName = netlink.FAMILY_V4, priority, table, iif
		return r
	}
	for _, r := range []*netlink.Rule{at(10, table, "vlan1"), at(20, unix.RT_TABLE_LOCAL, "")} {
		if err := h.RuleAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.RuleDel(at(0, unix.RT_TABLE_LOCAL, "")); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		t.Helper()
		rules, err := h.RuleList(netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		return len(rules)
	}
	rules := func(disabled bool) nodeRules {
		t.Helper()
		metrics, err := nodeagent.NewMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		cfg := Default()
		cfg.NoBranchProbes, cfg.Log, cfg.BPFDir = disabled, slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "none")
		cfg.StateFile = filepath.Join(t.TempDir(), "pods.json")
		_, rules, err := (&daemon{cfg: cfg, hostNS: node}).choose(metrics)
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	before, pods := count(), []netip.Addr{netip.MustParseAddr(pod)}
	for _, step := range []struct {
		what string
		do   func() error
		more int
	}{
		{"installed", func() error { return rules(false).Install(pods) }, 2},
		{"removed", func() error { return rules(false).Remove(pods) }, 0},
		{"added", func() error { return rules(false).Add(pods) }, 2},
		{"switched off", func() error { return rules(true).Install(pods) }, 0},
		{"added while off", func() error { return rules(true).Add(pods) }, 0},
		{"switched on", func() error { return rules(false).Install(pods) }, 2},
		{"purged", func() error { return rules(false).Purge() }, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := count() - before; got != step.more {
			t.Errorf("%s: %d rules, want %d", step.what, got, step.more)
		}
	}
}

// TestWhoRedirectsPodsThatStart: sklookup, unless the node cannot, or another back end is asked for.
func TestWhoRedirectsPodsThatStart(t *testing.T) {
	node, pins, none := nettest.New(t), nettest.PinDir(t), filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		backend, dir, want string
		fallbacks          float64
		warned             bool
	}{
		{"", pins, "sklookup", 0, false},
		{"sklookup", pins, "sklookup", 0, false},
		{"nft", pins, "", 0, false},
		{"iptables", pins, "", 0, false},
		{"", none, "", 1, false},
		{"sklookup", none, "", 1, true},
		{"nft", none, "", 0, false},
	} {
		registry := prometheus.NewRegistry()
		metrics, err := nodeagent.NewMetrics(registry)
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		cfg := Default()
		cfg.Backend, cfg.BPFDir, cfg.StateFile = tt.backend, tt.dir, filepath.Join(t.TempDir(), "pods.json")
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		d := &daemon{cfg: cfg, hostNS: node}
		chosen, _, err := d.choose(metrics)
		if err != nil {
			t.Fatal(err)
		}
		if d.early != nil {
			d.early.Close()
		}
		if (chosen.Early != nil) != (tt.want != "") || chosen.EarlyName != tt.want {
			t.Errorf("%+v: pods that start are redirected by %q", tt, chosen.EarlyName)
		}
		if got := counted(t, registry, "istio_cni_redirection_fallbacks_total"); got != tt.fallbacks {
			t.Errorf("%+v: %v fallbacks are counted", tt, got)
		}
		if warned := strings.Contains(log.String(), "level=WARN msg=\"redirection of all pods"); warned != tt.warned {
			t.Errorf("%+v: the log says\n%s", tt, log.String())
		}
	}
}

// counted is the sum of a metric over its labels.
func counted(t *testing.T, from prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestThePluginsLevelIsTheAgents(t *testing.T) {
	for spec, want := range map[string]string{
		"info": "info", "trace": "debug", "warn": "warn", "error": "error", "off": "none", "info,cni-plugin:debug": "debug", "debug,cni-plugin:error": "error",
	} {
		log, levels := telemetry.NewLogger(io.Discard, telemetry.Options{})
		if err := levels.Set(spec); err != nil {
			t.Fatal(err)
		}
		cfg := Default()
		cfg.Log = log
		if got := (&daemon{cfg: cfg, level: cfg.pluginLevel(t.Context())}).installation().LogLevel; got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
}
