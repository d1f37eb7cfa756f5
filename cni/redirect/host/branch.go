package host

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Branch keeps the ways between the node and its pods that are behind an interface of the cloud's network of their own (AWS: pods
// with security groups, "branch ENI"). There, policy rules of the network's plugin lead what comes from such a pod past the node's
// local addresses to the cloud, and what the node sends to it leaves by the node's uplink. The cloud brings both to their ends, but
// not probes with the well-known source address, which it does not know. For these pods, and for nobody else:
//
//	512       to POD iif lo            lookup T      what the node itself sends goes straight to the pod
//	P - 1     from POD iif V ipproto tcp lookup local  and so do the answers
//
// where the plugin has the rule "P: iif V lookup T" before the one for local addresses, and T the route "POD dev V".
// Not safe for concurrent use.
type Branch struct {
	ns   *os.File
	ipv6 bool
	log  *slog.Logger
}

const (
	// branchProtocol tells our policy rules from others' (FRA_PROTOCOL; no daemon has this number).
	branchProtocol = 169
	// branchPriority is that of the way to the pod: before the network's own rules for pods, and those of the main table.
	branchPriority = 512
	// attempts to list what is changing meanwhile.
	attempts = 5
)

// NewBranch looks for such pods in the network namespace ns of the node, which the caller keeps open.
func NewBranch(ns *os.File, ipv6 bool, log *slog.Logger) *Branch {
	return &Branch{ns: ns, ipv6: ipv6, log: log}
}

// way is one policy rule of ours. Comparable.
type way struct {
	priority, table int
	iif             string
	from, to        netip.Prefix
	tcp             bool
}

func (w way) rule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.IifName, r.Protocol = family, w.priority, w.table, w.iif, branchProtocol
	r.Src, r.Dst = network(w.from), network(w.to)
	if w.tcp {
		r.IPProto = unix.IPPROTO_TCP
	}
	return r
}

func wayOf(r netlink.Rule) way {
	return way{
		priority: r.Priority, table: r.Table, iif: r.IifName, from: prefix(r.Src), to: prefix(r.Dst), tcp: r.IPProto == unix.IPPROTO_TCP,
	}
}

func network(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if addr = addr.Unmap(); size != addr.BitLen() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, bits)
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// Install makes the rules for the given pods, and takes away those of others that an earlier agent has left.
func (b *Branch) Install(pods []netip.Addr) error {
	return b.each(func(s *state) error {
		var want []way
		for _, pod := range s.own(pods) {
			ways, err := s.waysTo(pod)
			if err != nil {
				return err
			}
			want = append(want, ways...)
		}
		if err := s.remove(func(w way) bool { return !slices.Contains(want, w) }); err != nil {
			return err
		}
		return s.add(want)
	})
}

// Add makes the rules for a pod that needs them.
func (b *Branch) Add(pod []netip.Addr) error {
	return b.each(func(s *state) error {
		for _, addr := range s.own(pod) {
			ways, err := s.waysTo(addr)
			if err != nil {
				return err
			}
			if len(ways) == 0 {
				continue
			}
			b.log.Info("a pod behind an interface of the cloud's network gets the node's probes directly", "address", addr)
			if err := s.add(ways); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove takes the rules for a pod away. None is no error.
func (b *Branch) Remove(pod []netip.Addr) error {
	return b.each(func(s *state) error {
		own := s.own(pod)
		return s.remove(func(w way) bool {
			return slices.ContainsFunc(own, func(addr netip.Addr) bool { return w.to == single(addr) || w.from == single(addr) })
		})
	})
}

// Purge takes all rules away.
func (b *Branch) Purge() error {
	return b.each(func(s *state) error { return s.remove(func(way) bool { return true }) })
}

// each does the same for both families.
func (b *Branch) each(do func(*state) error) error {
	h, err := netlink.NewHandleAt(vns.NsHandle(b.ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink of the node: %w", err)
	}
	defer h.Close()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if family == netlink.FAMILY_V6 && !b.ipv6 {
			continue
		}
		s := &state{handle: h, family: family}
		s.rules, err = list(func() ([]netlink.Rule, error) { return h.RuleList(family) })
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without IPv6, or without policy routing
		}
		if err != nil {
			return fmt.Errorf("list the node's policy rules: %w", err)
		}
		if err := do(s); err != nil {
			return err
		}
	}
	return nil
}

// list asks the kernel again when its answer was in the way of a change.
func list[T any](ask func() ([]T, error)) (out []T, err error) {
	for range attempts {
		if out, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// state is one family's policy rules as they were found.
type state struct {
	handle *netlink.Handle
	family int
	rules  []netlink.Rule
}

// own are the addresses of this family.
func (s *state) own(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, addr := range all {
		if addr = addr.Unmap(); addr.IsValid() && addr.Is4() == (s.family == netlink.FAMILY_V4) {
			out = append(out, addr)
		}
	}
	return out
}

func (s *state) add(ways []way) error {
	for _, w := range ways {
		if err := s.handle.RuleAdd(w.rule(s.family)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the node's policy rule %d for a pod: %w", w.priority, err)
		}
	}
	return nil
}

// remove deletes those of our rules that are chosen.
func (s *state) remove(chosen func(way) bool) error {
	for _, r := range s.rules {
		w := wayOf(r)
		if r.Protocol != branchProtocol || !chosen(w) {
			continue
		}
		if err := s.handle.RuleDel(w.rule(s.family)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete the node's policy rule %d for a pod: %w", w.priority, err)
		}
	}
	return nil
}

// waysTo are the rules that a pod needs: none, unless it is behind such an interface.
func (s *state) waysTo(pod netip.Addr) ([]way, error) {
	for _, r := range candidates(s.rules) {
		leads, err := s.leads(r, pod)
		if err != nil {
			return nil, err
		}
		if leads {
			return []way{
				{priority: branchPriority, table: r.Table, iif: "lo", to: single(pod)},
				{priority: r.Priority - 1, table: unix.RT_TABLE_LOCAL, iif: r.IifName, from: single(pod), tcp: true},
			}, nil
		}
	}
	return nil, nil
}

// candidates are others' rules that lead what comes in by one interface past the local addresses.
func candidates(rules []netlink.Rule) []netlink.Rule {
	plain := func(r netlink.Rule) bool {
		return r.Src == nil && r.Dst == nil && !r.Invert && r.Mark == 0 && r.OifName == ""
	}
	local := slices.IndexFunc(rules, func(r netlink.Rule) bool { return plain(r) && r.IifName == "" && r.Table == unix.RT_TABLE_LOCAL })
	if local < 0 {
		return nil
	}
	var out []netlink.Rule
	for _, r := range rules {
		before := r.Priority > 0 && r.Priority < rules[local].Priority
		own := r.Table == unix.RT_TABLE_LOCAL || r.Table == unix.RT_TABLE_MAIN || r.Protocol == branchProtocol
		if before && !own && plain(r) && r.IifName != "" && r.IifName != "lo" {
			out = append(out, r)
		}
	}
	return out
}

// leads tells whether the rule's table has the pod behind the rule's interface.
func (s *state) leads(r netlink.Rule, pod netip.Addr) (bool, error) {
	link, err := s.handle.LinkByName(r.IifName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil // of a pod that is gone
	}
	if err != nil {
		return false, fmt.Errorf("look at interface %s of the node: %w", r.IifName, err)
	}
	routes, err := list(func() ([]netlink.Route, error) {
		return s.handle.RouteListFiltered(s.family, &netlink.Route{Table: r.Table}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("list the node's routes in table %d: %w", r.Table, err)
	}
	return slices.ContainsFunc(routes, func(route netlink.Route) bool {
		return prefix(route.Dst) == single(pod) && route.LinkIndex == link.Attrs().Index && route.Gw == nil && route.Type == unix.RTN_UNICAST
	}), nil
}
