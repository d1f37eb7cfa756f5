// Package route puts the parts of a plan.Rules that are no packet filter into a network namespace, for all back ends alike:
// policy routes, sysctls, and what connection tracking remembers of DNS.
package route

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// handle opens netlink sockets in ns.
func handle(ns *os.File, families ...int) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()), families...)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	return h, nil
}

func ruleOf(p plan.PolicyRoute) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Table, r.Priority = familyOf(p.Family), p.Table, p.Priority
	mask := p.Mark.Mask
	r.Mark, r.Mask = p.Mark.Value, &mask
	return r
}

func familyOf(f plan.Family) int {
	if f == plan.FamilyIPv6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

func routeOf(p plan.PolicyRoute, lo int) *netlink.Route {
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if p.Family == plan.FamilyIPv6 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		LinkIndex: lo, Dst: all, Table: p.Table, Type: unix.RTN_LOCAL,
		Scope: netlink.SCOPE_HOST, Family: familyOf(p.Family),
	}
}

// loopback opens a namespace, and finds its loopback interface. The caller closes the handle.
func loopback(ns *os.File) (*netlink.Handle, netlink.Link, error) {
	h, err := handle(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		h.Close()
		return nil, nil, fmt.Errorf("find loopback: %w", err)
	}
	return h, lo, nil
}

// Apply brings loopback up, for redirection ends there, adds the policy routes and sets the sysctls.
func Apply(ns *os.File, rules plan.Rules) error {
	if err := applyRoutes(ns, rules.Routes); err != nil {
		return err
	}
	return applySysctls(ns, rules.Sysctls)
}

func applyRoutes(ns *os.File, routes []plan.PolicyRoute) error {
	h, lo, err := loopback(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	for _, p := range routes {
		err := h.RouteReplace(routeOf(p, lo.Attrs().Index))
		if p.Family == plan.FamilyIPv6 && noIPv6(err) {
			continue // a namespace without IPv6 on loopback has no IPv6 traffic to turn back
		}
		if err != nil {
			return fmt.Errorf("add %s route to table %d: %w", p.Family, p.Table, err)
		}
		if err := h.RuleAdd(ruleOf(p)); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("add %s rule for mark %s: %w", p.Family, p.Mark, err)
		}
	}
	return nil
}

// noIPv6 recognises how the kernel refuses IPv6 routes where IPv6 is disabled or not built in.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// Remove takes the policy routes away.
func Remove(ns *os.File, routes []plan.PolicyRoute) error {
	h, lo, err := loopback(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	gone := func(err error) bool {
		return err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || noIPv6(err)
	}
	for _, p := range routes {
		if err := h.RuleDel(ruleOf(p)); !gone(err) {
			return fmt.Errorf("delete %s rule for mark %s: %w", p.Family, p.Mark, err)
		}
		if err := h.RouteDel(routeOf(p, lo.Attrs().Index)); !gone(err) {
			return fmt.Errorf("delete %s route from table %d: %w", p.Family, p.Table, err)
		}
	}
	return nil
}

func applySysctls(ns *os.File, sysctls []plan.Sysctl) error {
	for _, s := range sysctls {
		err := netns.Do(ns, func() error { return writeSysctl(s) })
		if errors.Is(err, unix.EROFS) {
			err = netns.DoWithProc(ns, func() error { return writeSysctl(s) })
		}
		if err != nil && !s.Optional {
			return fmt.Errorf("set sysctl %s to %s: %w", s.Path, s.Value, err)
		}
	}
	return nil
}

// writeSysctl runs on a thread inside the namespace. What is so already is left alone.
func writeSysctl(s plan.Sysctl) error {
	if got, err := readSysctl(s); err == nil && got == s.Value {
		return nil
	}
	return os.WriteFile(filepath.Join("/proc/sys", s.Path), []byte(s.Value), 0)
}

func readSysctl(s plan.Sysctl) (string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc/sys", s.Path))
	return strings.TrimSpace(string(raw)), err
}

// dnsFlows selects tracked DNS exchanges over UDP.
type dnsFlows struct{}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (dnsFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == 53
}

// ForgetDNSFlows drops what connection tracking remembers of DNS over UDP. An app that keeps one socket for all
// queries is one long "connection" there: it would not notice that rules came or went.
func ForgetDNSFlows(ns *os.File) error {
	h, err := handle(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, dnsFlows{}); err != nil {
			return fmt.Errorf("forget tracked DNS exchanges: %w", err)
		}
	}
	return nil
}

// Inspect returns one sentence per route, policy rule and sysctl that is not as planned.
func Inspect(ns *os.File, rules plan.Rules) ([]string, error) {
	drift, err := inspectRoutes(ns, rules.Routes)
	if err != nil {
		return nil, err
	}
	err = netns.Do(ns, func() error {
		for _, s := range rules.Sysctls {
			got, err := readSysctl(s)
			if err != nil && s.Optional {
				continue
			}
			if err != nil || got != s.Value {
				drift = append(drift, fmt.Sprintf("sysctl %s is %q, want %q", s.Path, got, s.Value))
			}
		}
		return nil
	})
	return drift, err
}

func inspectRoutes(ns *os.File, routes []plan.PolicyRoute) ([]string, error) {
	h, err := handle(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var drift []string
	for _, p := range routes {
		rules, err := h.RuleList(familyOf(p.Family))
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list %s rules: %w", p.Family, err)
		}
		if !hasRule(rules, ruleOf(p)) {
			drift = append(drift, fmt.Sprintf("%s rule for mark %s is missing", p.Family, p.Mark))
		}
		found, err := h.RouteListFiltered(familyOf(p.Family),
			&netlink.Route{Table: p.Table, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list %s routes: %w", p.Family, err)
		}
		if len(found) == 0 {
			drift = append(drift, fmt.Sprintf("%s route in table %d is missing", p.Family, p.Table))
		}
	}
	return drift, nil
}

func hasRule(rules []netlink.Rule, want *netlink.Rule) bool {
	for _, r := range rules {
		if r.Priority == want.Priority && r.Table == want.Table && r.Mark == want.Mark &&
			r.Mask != nil && *r.Mask == *want.Mask {
			return true
		}
	}
	return false
}
