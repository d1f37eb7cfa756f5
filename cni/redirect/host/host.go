// Package host keeps the node's own rules: the probes that the node sends to enrolled pods get a well-known source address,
// by which the pods' rules let them pass. Only packets of the node's own sockets are rewritten, never forwarded ones.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

const (
	// TableName is the one table in the node's network namespace.
	TableName = "istio-ambient-host"
	set4      = "istio-inpod-probes-v4"
	set6      = "istio-inpod-probes-v6"
	chainName = "istio-postrouting"
	reg       = 1
)

// Rules are the node's. Not safe for concurrent use.
type Rules struct {
	ns     *os.File
	config plan.Config
}

// New keeps the rules in the network namespace ns, with the probe sources of config. The caller keeps ns open.
func New(ns *os.File, config plan.Config) *Rules { return &Rules{ns: ns, config: config} }

func (r *Rules) connect() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(r.ns.Fd())))
	if err != nil {
		return nil, fmt.Errorf("open nftables of the node: %w", err)
	}
	return c, nil
}

func table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// sets returns the sets of the families in use, with the source that their members see.
func (r *Rules) sets(t *nftables.Table) map[*nftables.Set]netip.Addr {
	out := map[*nftables.Set]netip.Addr{
		{Table: t, Name: set4, KeyType: nftables.TypeIPAddr}: r.config.ProbeSource,
	}
	if r.config.IPv6 {
		out[&nftables.Set{Table: t, Name: set6, KeyType: nftables.TypeIP6Addr}] = r.config.ProbeSourceIPv6
	}
	return out
}

// Install makes the node's rules anew, for the given pods, in one step.
func (r *Rules) Install(pods []netip.Addr) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	c.AddTable(table()) // deleting a table that is not there would fail the batch
	c.DelTable(table())
	t := c.AddTable(table())
	chain := c.AddChain(&nftables.Chain{
		Name: chainName, Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	for set, source := range r.sets(t) {
		if err := c.AddSet(set, elements(set, pods)); err != nil {
			return fmt.Errorf("node's set of pods: %w", err)
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: snat(set, source)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install the node's rules: %w", err)
	}
	return nil
}

// snat rewrites the source of what a socket of this namespace sends to a member of the set over TCP. Forwarded packets have
// no socket, and so no owner: the rule's first expression ends it for them.
func snat(set *nftables.Set, source netip.Addr) []expr.Any {
	family, offset, length := uint32(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if source.Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: reg},
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(family)}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
		&expr.Counter{},
		&expr.Immediate{Register: reg, Data: source.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: reg},
	}
}

func elements(set *nftables.Set, pods []netip.Addr) []nftables.SetElement {
	var out []nftables.SetElement
	for _, ip := range pods {
		if ip = ip.Unmap(); ip.Is4() == (set.Name == set4) {
			out = append(out, nftables.SetElement{Key: ip.AsSlice()})
		}
	}
	return out
}

// Add lets the node's probes of a pod pass.
func (r *Rules) Add(pod []netip.Addr) error { return r.change(pod, (*nftables.Conn).SetAddElements) }

// Remove takes a pod out. Addresses that are not in are no error.
func (r *Rules) Remove(pod []netip.Addr) error {
	err := r.change(pod, (*nftables.Conn).SetDeleteElements)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (r *Rules) change(pod []netip.Addr, apply func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	for set := range r.sets(table()) {
		if list := elements(set, pod); len(list) > 0 {
			if err := apply(c, set, list); err != nil {
				return fmt.Errorf("node's set of pods: %w", err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change the node's set of pods: %w", err)
	}
	return nil
}

// Purge takes the node's rules away.
func (r *Rules) Purge() error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	c.AddTable(table())
	c.DelTable(table())
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove the node's rules: %w", err)
	}
	return nil
}
