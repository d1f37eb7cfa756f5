package sklookup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// The policy rules, by priority. They come before those of others. The kernel's own rule for local addresses, of priority 0, makes
// room for the first: deleting it and having it again elsewhere is what the kernel foresees for this.
const (
	prefNear  = 1 // what the proxy begins with the pod itself arrives over loopback, not over the pod's interface, as what it answers does
	prefLocal = 2 // the kernel's own rule
	prefOwn   = 10
	prefProbe = 11
	prefTCP   = 12
	prefDNS   = 13
	prefEnd   = 20 // where those go on that are not captured

	tableCapture = 101 // everything is local
	tableNear    = 102 // the pod's addresses, on loopback

	actionNop = 3 // FR_ACT_NOP
	lo        = "lo"
)

// network is the pod's, as it is now.
type network struct {
	handle    *netlink.Handle
	loopback  int
	device    int // the pod's one interface
	addresses []netip.Addr
	source    map[bool]netip.Addr // by family (true is IPv6): the first address
	v6        bool                // the namespace has IPv6, if only on loopback and on the link
}

// look opens the network of ns. The caller closes it.
func look(ns *os.File) (*network, error) {
	handle, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	n := &network{handle: handle, source: map[bool]netip.Addr{}}
	if err := n.read(); err != nil {
		handle.Close()
		return nil, err
	}
	return n, nil
}

func (n *network) read() error {
	links, err := n.handle.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	others := 0
	for _, l := range links {
		switch {
		case l.Attrs().Flags&net.FlagLoopback != 0:
			n.loopback = l.Attrs().Index
		case l.Attrs().Flags&net.FlagUp != 0:
			n.device = l.Attrs().Index
			others++
		}
	}
	if n.loopback != loopbackInterface {
		return fmt.Errorf("%w: its loopback interface has index %d", redirect.ErrUnsuitable, n.loopback)
	}
	if others != 1 {
		n.device = 0
	}
	list, err := n.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		n.v6 = n.v6 || ip.Is6()
		// Link-local addresses of IPv6 come by themselves, and late. What uses them is dropped: it cannot be in the mesh.
		if !ok || ip.IsLoopback() || ip.Is6() && ip.IsLinkLocalUnicast() {
			continue
		}
		n.addresses = append(n.addresses, ip)
		if _, have := n.source[ip.Is6()]; !have {
			n.source[ip.Is6()] = ip
		}
	}
	return nil
}

// suits tells why the pod cannot be served; nil if it can. With several interfaces the kernel's choice of a source address would
// have to be made again, in one route.
func (n *network) suits(c plan.Capture) error {
	switch {
	case c.Reroute != "":
		return fmt.Errorf("%w: its annotation %s reroutes %s", redirect.ErrUnsuitable, plan.AnnotationReroute, c.Reroute)
	case n.device == 0:
		return fmt.Errorf("%w: it has not exactly one interface", redirect.ErrUnsuitable)
	case !n.source[false].IsValid() && !(c.IPv6 && n.source[true].IsValid()):
		return fmt.Errorf("%w: its interface has no address", redirect.ErrUnsuitable)
	}
	return nil
}

// families are those that the pod has, of those that are captured.
func (n *network) families(c plan.Capture) []int {
	if !c.Outbound {
		return nil
	}
	var out []int
	if n.source[false].IsValid() {
		out = append(out, netlink.FAMILY_V4)
	}
	if c.IPv6 && n.v6 {
		out = append(out, netlink.FAMILY_V6)
	}
	return out
}

// rules of a family, in the order in which they may be added: what is jumped to comes first.
func rules(family int, c plan.Capture) []*netlink.Rule {
	rule := func(priority int, edit func(*netlink.Rule)) *netlink.Rule {
		r := netlink.NewRule()
		r.Family, r.Priority = family, priority
		edit(r)
		return r
	}
	marked := func(r *netlink.Rule, m plan.Mark) { r.Mark, r.Mask = m.Value, &m.Mask }
	out := []*netlink.Rule{
		rule(prefEnd, func(r *netlink.Rule) { r.Type = actionNop }),
		rule(prefNear, func(r *netlink.Rule) { marked(r, plan.BeginMark()); r.Table = tableNear }),
		rule(prefLocal, func(r *netlink.Rule) { r.Table = unix.RT_TABLE_LOCAL }),
		rule(prefOwn, func(r *netlink.Rule) { marked(r, plan.OwnMark()); r.IifName, r.Goto = lo, prefEnd }),
	}
	for _, ip := range of(c.Probes, family == netlink.FAMILY_V6) {
		out = append(out, rule(prefProbe, func(r *netlink.Rule) {
			r.IifName, r.Goto = lo, prefEnd
			r.Dst = host(ip)
		}))
	}
	// Only with the interface named do these not make the kernel look for ports in what it receives, and not count when it looks
	// whether a source address is plausible.
	if c.DNS {
		out = append(out, rule(prefDNS, func(r *netlink.Rule) {
			r.IifName, r.IPProto, r.Table = lo, unix.IPPROTO_UDP, tableCapture
			r.Dport = netlink.NewRulePortRange(portDNS, portDNS)
		}))
	}
	return append(out, rule(prefTCP, func(r *netlink.Rule) { r.IifName, r.IPProto, r.Table = lo, unix.IPPROTO_TCP, tableCapture }))
}

func host(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

// routes of a family.
func (n *network) routes(family int) []*netlink.Route {
	v6 := family == netlink.FAMILY_V6
	local := func(table int, dst *net.IPNet, device int) *netlink.Route {
		return &netlink.Route{
			LinkIndex: device, Dst: dst, Table: table, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Family: family,
		}
	}
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if v6 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	if !n.source[v6].IsValid() { // nothing can leave but over the link
		link := &net.IPNet{IP: net.ParseIP("fe80::"), Mask: net.CIDRMask(10, 128)}
		return []*netlink.Route{local(tableCapture, link, n.device)}
	}
	// The second is for sockets that are bound to the pod's interface: these may not leave by it either.
	out := []*netlink.Route{local(tableCapture, all, n.loopback), local(tableCapture, all, n.device)}
	for i, r := range out {
		r.Priority, r.Src = i+1, n.source[v6].AsSlice()
	}
	for _, ip := range of(n.addresses, v6) {
		out = append(out, local(tableNear, host(ip), n.loopback))
	}
	return out
}

// enter adds what is missing and takes away what is not wanted (any more). What is not captured is never without a route meanwhile.
func (n *network) enter(c plan.Capture) error {
	wanted := n.families(c)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if !slices.Contains(wanted, family) {
			if err := n.leave(family); err != nil {
				return err
			}
			continue
		}
		if err := n.enterFamily(family, c); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) enterFamily(family int, c plan.Capture) error {
	want := n.routes(family)
	for _, r := range want {
		if err := n.handle.RouteReplace(r); err != nil {
			return fmt.Errorf("add %s to table %d: %w", r.Dst, r.Table, err)
		}
	}
	if err := n.dropRoutes(family, want); err != nil {
		return err
	}
	for _, r := range rules(family, c) {
		if err := n.handle.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the policy rule of priority %d: %w", r.Priority, err)
		}
	}
	have, err := n.ruleList(family)
	if err != nil {
		return err
	}
	for _, r := range have {
		if r.Priority == 0 && r.Table == unix.RT_TABLE_LOCAL || ours(r) && !hasRule(rules(family, c), r) {
			if err := n.handle.RuleDel(&r); err != nil {
				return fmt.Errorf("delete the policy rule of priority %d: %w", r.Priority, err)
			}
		}
	}
	return nil
}

// leave takes everything of a family away.
func (n *network) leave(family int) error {
	have, err := n.ruleList(family)
	if err != nil {
		return err
	}
	mine := false
	for _, r := range have {
		mine = mine || ours(r)
	}
	if mine {
		local := netlink.NewRule()
		local.Family, local.Priority, local.Table = family, 0, unix.RT_TABLE_LOCAL
		if err := n.handle.RuleAdd(local); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("restore the rule for local addresses: %w", err)
		}
	}
	// Backwards: what captures goes before what exempts from it.
	for _, priority := range []int{prefTCP, prefDNS, prefProbe, prefOwn, prefEnd, prefNear, prefLocal} {
		for _, r := range have {
			if ours(r) && r.Priority == priority {
				if err := n.handle.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
					return fmt.Errorf("delete the policy rule of priority %d: %w", r.Priority, err)
				}
			}
		}
	}
	return n.dropRoutes(family, nil)
}

// dropRoutes deletes the routes of our tables, except those to keep.
func (n *network) dropRoutes(family int, keep []*netlink.Route) error {
	for _, table := range []int{tableCapture, tableNear} {
		have, err := n.routeList(family, table)
		if err != nil {
			return err
		}
		for _, r := range have {
			if hasRoute(keep, r) {
				continue
			}
			if err := n.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("delete %s from table %d: %w", r.Dst, table, err)
			}
		}
	}
	return nil
}

// differences returns one sentence per rule and route that is missing, or not wanted.
func (n *network) differences(c plan.Capture) ([]string, error) {
	var out []string
	wanted := n.families(c)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		name := map[int]string{netlink.FAMILY_V4: "IPv4", netlink.FAMILY_V6: "IPv6"}[family]
		var wantRules []*netlink.Rule
		var wantRoutes []*netlink.Route
		if slices.Contains(wanted, family) {
			wantRules, wantRoutes = rules(family, c), n.routes(family)
		}
		have, err := n.ruleList(family)
		if err != nil {
			return nil, err
		}
		for _, r := range have {
			if ours(r) && !hasRule(wantRules, r) {
				out = append(out, fmt.Sprintf("%s policy rule of priority %d is there, want none like it", name, r.Priority))
			}
			if r.Priority == 0 && r.Table == unix.RT_TABLE_LOCAL && len(wantRules) > 0 {
				out = append(out, fmt.Sprintf("%s rule for local addresses comes before the redirection", name))
			}
		}
		for _, w := range wantRules {
			if !anyRule(have, w) {
				out = append(out, fmt.Sprintf("%s policy rule of priority %d is missing", name, w.Priority))
			}
		}
		for _, table := range []int{tableCapture, tableNear} {
			have, err := n.routeList(family, table)
			if err != nil {
				return nil, err
			}
			for _, w := range wantRoutes {
				if w.Table == table && !anyRoute(have, w) {
					out = append(out, fmt.Sprintf("%s route to %s in table %d is missing", name, w.Dst, table))
				}
			}
		}
	}
	return out, nil
}

func (n *network) ruleList(family int) ([]netlink.Rule, error) {
	list, err := n.handle.RuleList(family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, nil
		}
		return nil, fmt.Errorf("list policy rules: %w", err)
	}
	return list, nil
}

func (n *network) routeList(family, table int) ([]netlink.Route, error) {
	list, err := n.handle.RouteListFiltered(family, &netlink.Route{Table: table, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, nil
		}
		return nil, fmt.Errorf("list routes of table %d: %w", table, err)
	}
	return list, nil
}

// ours are the rules that this package adds, by where they are and what they do.
func ours(r netlink.Rule) bool {
	switch r.Priority {
	case prefLocal:
		return r.Table == unix.RT_TABLE_LOCAL && r.Mark == 0 && r.IifName == ""
	case prefNear:
		return r.Table == tableNear
	case prefTCP, prefDNS:
		return r.Table == tableCapture
	case prefOwn, prefProbe:
		return r.Goto == prefEnd
	case prefEnd:
		return r.Goto < 0 && (r.Table <= 0) && r.Mark == 0 && r.IifName == ""
	}
	return false
}

func sameRule(a, b netlink.Rule) bool {
	mask := func(r netlink.Rule) uint32 {
		if r.Mask == nil {
			return 0
		}
		return *r.Mask
	}
	ports := func(r netlink.Rule) netlink.RulePortRange {
		if r.Dport == nil {
			return netlink.RulePortRange{}
		}
		return *r.Dport
	}
	return a.Priority == b.Priority && max(a.Table, 0) == max(b.Table, 0) && a.Mark == b.Mark && mask(a) == mask(b) && a.IifName == b.IifName &&
		a.Goto == b.Goto && a.IPProto == b.IPProto && ports(a) == ports(b) && fmt.Sprint(a.Dst) == fmt.Sprint(b.Dst)
}

func hasRule(list []*netlink.Rule, r netlink.Rule) bool {
	return slices.ContainsFunc(list, func(w *netlink.Rule) bool { return sameRule(*w, r) })
}

func anyRule(list []netlink.Rule, w *netlink.Rule) bool {
	return slices.ContainsFunc(list, func(r netlink.Rule) bool { return sameRule(*w, r) })
}

func sameRoute(a, b netlink.Route) bool {
	return a.Table == b.Table && a.LinkIndex == b.LinkIndex && destination(a) == destination(b) && a.Src.Equal(b.Src)
}

// destination is "all" for the default route, which the library reads back in several ways.
func destination(r netlink.Route) string {
	if r.Dst == nil {
		return "all"
	}
	if ones, _ := r.Dst.Mask.Size(); ones == 0 {
		return "all"
	}
	return r.Dst.String()
}

func hasRoute(list []*netlink.Route, r netlink.Route) bool {
	return slices.ContainsFunc(list, func(w *netlink.Route) bool { return sameRoute(*w, r) })
}

func anyRoute(list []netlink.Route, w *netlink.Route) bool {
	return slices.ContainsFunc(list, func(r netlink.Route) bool { return sameRoute(*w, r) })
}
