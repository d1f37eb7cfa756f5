package sklookup

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/route"
)

// keptTable has base chains that decide nothing: while it is there, connections that another back end has redirected go on being
// translated.
const keptTable = "istio-ambient-kept"

func kept() *nftables.Table {
	return &nftables.Table{Name: keptTable, Family: nftables.TableFamilyINet}
}

// Keep makes the connections survive that another back end has redirected, whose rules are about to go.
func (b *Backend) Keep(ns *os.File) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("open nftables in %s: %w", ns.Name(), err)
	}
	t := c.AddTable(kept())
	for name, hook := range map[string]*nftables.ChainHook{"output": nftables.ChainHookOutput, "prerouting": nftables.ChainHookPrerouting} {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityNATDest})
		// Chains alone do not keep connection tracking in use; an expression that reads from it does.
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: 1}}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("keep translating open connections: %w", err)
	}
	return route.ForgetDNSFlows(ns)
}

// dropKept undoes Keep.
func dropKept(ns *os.File) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("open nftables in %s: %w", ns.Name(), err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == keptTable {
			c.DelTable(kept())
			if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete an nftables table: %w", err)
			}
		}
	}
	return nil
}
