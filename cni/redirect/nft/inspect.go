package nft

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// Inspect compares the kernel with rules and returns one sentence per difference; none means in order.
func (Backend) Inspect(ns *os.File, rules plan.Rules) ([]string, error) {
	drift, err := inspectChains(ns, rules.Chains)
	if err != nil {
		return nil, err
	}
	routes, err := inspectRoutes(ns, rules.Routes)
	if err != nil {
		return nil, err
	}
	drift = append(drift, routes...)
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

func inspectChains(ns *os.File, chains []plan.Chain) ([]string, error) {
	c, err := connect(ns)
	if err != nil {
		return nil, err
	}
	own, err := ownChains(c)
	if err != nil {
		return nil, err
	}
	got := map[string]*nftables.Chain{}
	for _, chain := range own {
		got[chain.Name] = chain
	}
	var drift []string
	for _, want := range chains {
		chain, ok := got[want.Name()]
		delete(got, want.Name())
		if !ok {
			drift = append(drift, fmt.Sprintf("chain %s is missing", want.Name()))
			continue
		}
		d, err := inspectChain(c, chain, want)
		if err != nil {
			return nil, err
		}
		drift = append(drift, d...)
	}
	for name, chain := range got {
		rules, err := c.GetRules(table(), chain)
		if err != nil {
			return nil, fmt.Errorf("list rules of chain %s: %w", name, err)
		}
		if len(rules) > 0 {
			drift = append(drift, fmt.Sprintf("chain %s has rules, want none", name))
		}
	}
	return drift, nil
}

func inspectChain(c *nftables.Conn, chain *nftables.Chain, want plan.Chain) ([]string, error) {
	rules, err := c.GetRules(table(), chain)
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s: %w", chain.Name, err)
	}
	if len(rules) != len(want.Rules) {
		return []string{fmt.Sprintf("chain %s has %d rules, want %d", chain.Name, len(rules), len(want.Rules))}, nil
	}
	var drift []string
	for i, rule := range want.Rules {
		exprs, err := exprsOf(want, rule)
		if err != nil {
			return nil, err
		}
		if !sameExprs(rules[i].Exprs, exprs) {
			drift = append(drift, fmt.Sprintf("chain %s rule %d is not %q", chain.Name, i+1, rule))
		}
	}
	return drift, nil
}

// sameExprs compares what the kernel gives back with what was sent. Counters count, and are left out.
func sameExprs(got, want []expr.Any) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range want {
		if _, ok := want[i].(*expr.Counter); ok {
			if _, ok := got[i].(*expr.Counter); !ok {
				return false
			}
			continue
		}
		if r, ok := want[i].(*expr.Redir); ok {
			g, ok := got[i].(*expr.Redir) // the kernel fills in the maximum and the flags
			if !ok || g.RegisterProtoMin != r.RegisterProtoMin {
				return false
			}
			continue
		}
		if ct, ok := want[i].(*expr.Ct); ok && ct.SourceRegister {
			g, ok := got[i].(*expr.Ct) // the library does not read back which register is the source
			if !ok || g.Key != ct.Key {
				return false
			}
			continue
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			return false
		}
	}
	return true
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
