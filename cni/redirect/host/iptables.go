package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/iptables"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// chainIPTables is the chain by which people find the node's rules.
const chainIPTables = "ISTIO_POSTRT"

// IPTables are the node's rules made by iptables, with the pods in two IP sets. Not safe for concurrent use.
type IPTables struct {
	ns     *os.File
	tool   iptables.Tool
	config plan.Config
}

// ErrNoSets means that the kernel has no IP sets, which the rules of iptables need.
var ErrNoSets = errors.New("the kernel has no IP sets (CONFIG_IP_SET, CONFIG_NETFILTER_XT_SET)")

// NewIPTables keeps the rules in the network namespace ns, which the caller keeps open.
func NewIPTables(ns *os.File, tool iptables.Tool, config plan.Config) (*IPTables, error) {
	r := &IPTables{ns: ns, tool: tool, config: config}
	h, err := r.handle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if _, _, err := h.IpsetProtocol(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSets, err)
	}
	return r, nil
}

func (r *IPTables) handle() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(vns.NsHandle(r.ns.Fd()), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink of the node: %w", err)
	}
	return h, nil
}

// family is what the rules of one family differ in.
type family struct {
	plan   plan.Family
	set    string
	number uint8
	source netip.Addr
}

func (r *IPTables) families() []family {
	out := []family{{plan.FamilyIPv4, set4, unix.AF_INET, r.config.ProbeSource}}
	if r.config.IPv6 {
		out = append(out, family{plan.FamilyIPv6, set6, unix.AF_INET6, r.config.ProbeSourceIPv6})
	}
	return out
}

// Install makes the node's rules anew, for the given pods.
func (r *IPTables) Install(pods []netip.Addr) error {
	h, err := r.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, f := range r.families() {
		err := h.IpsetCreate(f.set, "hash:ip", netlink.IpsetCreateOptions{Replace: true, Family: f.number})
		if err != nil {
			return fmt.Errorf("create IP set %s: %w", f.set, err)
		}
		if err := h.IpsetFlush(f.set); err != nil {
			return fmt.Errorf("empty IP set %s: %w", f.set, err)
		}
	}
	if err := r.Add(pods); err != nil {
		return err
	}
	for _, f := range r.families() {
		text, err := r.tool.Save(r.ns, f.plan)
		if err != nil {
			return err
		}
		input := "*nat\n:" + chainIPTables + " - [0:0]\n"
		if !strings.Contains(text, jumpToHost) {
			input += jumpToHost + "\n"
		}
		input += fmt.Sprintf("-A %s -p tcp -m owner --socket-exists -m set --match-set %s dst -j SNAT --to-source %s\nCOMMIT\n", chainIPTables, f.set, f.source)
		if err := r.tool.Restore(r.ns, f.plan, input); err != nil {
			return fmt.Errorf("install the node's rules: %w", err)
		}
	}
	return nil
}

// jumpToHost is the rule that calls the chain.
const jumpToHost = "-A POSTROUTING -j " + chainIPTables

// Add lets the node's probes of a pod pass.
func (r *IPTables) Add(pod []netip.Addr) error {
	return r.change(pod, func(h *netlink.Handle, set string, entry *netlink.IPSetEntry) error { return h.IpsetAdd(set, entry) })
}

// Remove takes a pod out. Addresses that are not in are no error.
func (r *IPTables) Remove(pod []netip.Addr) error {
	return r.change(pod, func(h *netlink.Handle, set string, entry *netlink.IPSetEntry) error {
		if in, err := h.IpsetTest(set, entry); err == nil && !in {
			return nil
		}
		return h.IpsetDel(set, entry)
	})
}

func (r *IPTables) change(pod []netip.Addr, apply func(*netlink.Handle, string, *netlink.IPSetEntry) error) error {
	h, err := r.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, f := range r.families() {
		for _, ip := range pod {
			if ip = ip.Unmap(); ip.Is4() != (f.plan == plan.FamilyIPv4) {
				continue
			}
			if err := apply(h, f.set, &netlink.IPSetEntry{IP: ip.AsSlice(), Replace: true}); err != nil {
				return fmt.Errorf("change IP set %s: %w", f.set, err)
			}
		}
	}
	return nil
}

// Purge takes the node's rules away.
func (r *IPTables) Purge() error {
	h, err := r.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, f := range r.families() {
		text, err := r.tool.Save(r.ns, f.plan)
		if err != nil {
			return err
		}
		input := ""
		if strings.Contains(text, jumpToHost) {
			input += strings.Replace(jumpToHost, "-A", "-D", 1) + "\n"
		}
		if strings.Contains(text, ":"+chainIPTables+" ") {
			input += "-F " + chainIPTables + "\n-X " + chainIPTables + "\n"
		}
		if input != "" {
			if err := r.tool.Restore(r.ns, f.plan, "*nat\n"+input+"COMMIT\n"); err != nil {
				return fmt.Errorf("remove the node's rules: %w", err)
			}
		}
		// The kernel lets go of a set a moment after its last rule has gone; a set without rules does no harm.
		_ = h.IpsetDestroy(f.set)
	}
	return nil
}
