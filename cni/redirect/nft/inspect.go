package nft

import (
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/route"
)

// Inspect compares the kernel with rules and returns one sentence per difference; none means in order.
func (Backend) Inspect(ns *os.File, rules plan.Rules) ([]string, error) {
	drift, err := inspectChains(ns, rules.Chains)
	if err != nil {
		return nil, err
	}
	more, err := route.Inspect(ns, rules)
	return append(drift, more...), err
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
	// The library does not read back what a packet is diverted by; the address and the port before it are.
	want = slices.DeleteFunc(slices.Clone(want), func(x expr.Any) bool { _, ok := x.(*expr.TProxy); return ok })
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
