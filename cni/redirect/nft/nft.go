// Package nft puts a plan.Rules into a network namespace: nftables by one atomic netlink batch, policy routes and
// sysctls. No binary is run and the calling thread never changes its namespace.
//
// The table survives un-enrolment. Connections that were redirected live on only while the NAT chains are hooked,
// so Remove empties the chains that catch new connections and leaves everything that open ones need; Purge takes
// away the rest and cuts them.
package nft

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/route"
)

// TableName is the one inet table of a pod.
const TableName = "istio-ambient"

// Backend is the nftables back end. The zero value works; it holds no state and is safe for concurrent use on
// different namespaces.
type Backend struct{}

func table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// connect opens an nftables connection in ns.
func connect(ns *os.File) (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return nil, fmt.Errorf("open nftables in %s: %w", ns.Name(), err)
	}
	return c, nil
}

// Apply makes ns look like rules, whatever it looked like before: rules of ours that are not planned go, open
// connections stay. Applying twice is the same as once. The caller keeps ns open.
func (Backend) Apply(ns *os.File, rules plan.Rules) error {
	if err := route.Apply(ns, rules); err != nil {
		return err
	}
	if err := applyChains(ns, rules.Chains); err != nil {
		return err
	}
	return route.ForgetDNSFlows(ns)
}

func applyChains(ns *os.File, chains []plan.Chain) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	t := c.AddTable(table())
	c.FlushTable(t)
	for _, chain := range chains {
		nc := c.AddChain(chainOf(t, chain))
		for _, rule := range chain.Rules {
			exprs, err := exprsOf(chain, rule)
			if err != nil {
				return err
			}
			c.AddRule(&nftables.Rule{
				Table: t, Chain: nc, Exprs: exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, rule.Why),
			})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("apply nftables rules: %w", err)
	}
	return nil
}

// Remove stops the redirection of new connections. Those that are open keep working until they end. A namespace
// that was never enrolled is left as it is.
func (Backend) Remove(ns *os.File) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	chains, err := ownChains(c)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if isMangle(chain.Name) { // marks and routes carry the open connections
			if err := undivert(c, chain); err != nil {
				return err
			}
			continue
		}
		c.FlushChain(chain)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("flush nftables rules: %w", err)
	}
	return route.ForgetDNSFlows(ns)
}

// undivert takes the rules out of a chain of marks that give new questions to the proxy: those of an interface.
func undivert(c *nftables.Conn, chain *nftables.Chain) error {
	rules, err := c.GetRules(table(), chain)
	if err != nil {
		return fmt.Errorf("list rules of chain %s: %w", chain.Name, err)
	}
	for _, rule := range rules {
		if !slices.ContainsFunc(rule.Exprs, func(x expr.Any) bool { m, ok := x.(*expr.Meta); return ok && m.Key == expr.MetaKeyIIFNAME }) {
			continue
		}
		if err := c.DelRule(rule); err != nil {
			return fmt.Errorf("delete a rule of chain %s: %w", chain.Name, err)
		}
	}
	return nil
}

// Purge removes every trace of the plan; redirected connections that are still open are cut.
func (Backend) Purge(ns *os.File, rules plan.Rules) error {
	if err := (Backend{}).Clear(ns); err != nil {
		return err
	}
	return route.Remove(ns, rules.Routes)
}

// Clear deletes the table. Connections that it redirected live on only where another back end's NAT chains are in place.
func (Backend) Clear(ns *os.File) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	chains, err := ownChains(c)
	if err != nil || len(chains) == 0 {
		return err
	}
	c.DelTable(table())
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table: %w", err)
	}
	return nil
}

func isMangle(chain string) bool {
	return chain == plan.Chain{Kind: plan.Mangle, Hook: plan.Prerouting}.Name() ||
		chain == plan.Chain{Kind: plan.Mangle, Hook: plan.Output}.Name()
}

// ownChains lists the chains of our table; none if there is no such table.
func ownChains(c *nftables.Conn) ([]*nftables.Chain, error) {
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var own []*nftables.Chain
	for _, chain := range all {
		if chain.Table.Name == TableName {
			own = append(own, chain)
		}
	}
	return own, nil
}

// Supported tells why this kernel cannot have the rules in the network namespace ns; nil if it can.
func Supported(ns *os.File) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	if _, err := c.ListTablesOfFamily(nftables.TableFamilyINet); err != nil {
		return fmt.Errorf("the kernel has no nftables (CONFIG_NF_TABLES_INET): %w", err)
	}
	return nil
}
