// Package sklookup puts a plan.Rules into a network namespace without any packet filter and without connection tracking: policy
// routes make the application's new connections arrive at home, and a BPF program of type sk_lookup gives them, and those from
// outside, to the listeners of the node's proxy. The original destination is the accepted socket's own address.
//
//	program.go   the decision, made for one pod, as BPF instructions
//	rules.go     the policy routes
//	visit.go     programs that the kernel runs for every socket of a namespace: they enter listeners into the map that the decision
//	             reads, and mark connections that must go on as they are
//	kernel.go    pins: all of it goes on without the agent
//	trial.go     whether it works on this kernel
//
// It needs listeners that are transparent and carry the proxy's mark, and a name server that answers from the address that was asked
// (netx.Redirected). An application cannot take their place, for it cannot set the mark.
package sklookup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/route"
)

// DefaultDir is where the pins are. Its parent must be a BPF file system.
const DefaultDir = "/sys/fs/bpf/istio-cni"

// Backend is the sk_lookup back end. Safe for concurrent use.
type Backend struct{ store *store }

// Open loads what all pods have in common and keeps its pins below dir. An error says which feature the kernel lacks; then there is
// no such back end on this node.
func Open(dir string) (*Backend, error) {
	const needs = "sk_lookup, BPF iterators over sockets, and BTF"
	s, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("redirection by sklookup: %w", withRemedy(err, needs))
	}
	b := &Backend{store: s}
	if err = b.probe(); err == nil {
		err = b.try()
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("redirection by sklookup: %w", withRemedy(err, needs))
	}
	return b, nil
}

// withRemedy tells what to do about a kernel without what is needed.
func withRemedy(err error, needs string) error {
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%w: this takes a kernel with %s: choose another redirectBackend (nft or iptables)", err, needs)
	}
	return err
}

// probe loads a decision about all that there is.
func (b *Backend) probe() error {
	any6 := netip.IPv6LinkLocalAllNodes()
	p, err := b.load(pod{capture: plan.Capture{Outbound: true, Inbound: true, DNS: true, IPv6: true}, addresses: []netip.Addr{any6}})
	if err != nil {
		return err
	}
	return p.Close()
}

// Close lets go of the agent's own descriptors; the redirection of pods goes on.
func (b *Backend) Close() { b.store.close() }

// Uninstall takes everything away that is not in a network namespace.
func (b *Backend) Uninstall() error {
	if err := os.RemoveAll(b.store.dir); err != nil {
		return fmt.Errorf("take the pins away: %w", err)
	}
	return nil
}

func inode(ns *os.File) (uint32, error) {
	id, err := netns.Identify(ns)
	if err != nil {
		return 0, err
	}
	if id.Ino > math.MaxUint32 {
		return 0, fmt.Errorf("network namespace %s has no number of 32 bits", id)
	}
	return uint32(id.Ino), nil
}

// load verifies and loads the decision for a pod.
func (b *Backend) load(p pod) (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: nameOf(p), Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: gpl,
		Instructions: program(p, b.store.listeners.FD()),
	})
	if err != nil {
		return nil, fmt.Errorf("load the sk_lookup program: %w", err)
	}
	return program, nil
}

// Apply makes ns look like rules; open connections stay. The proxy must listen there already.
func (b *Backend) Apply(ns *os.File, rules plan.Rules) error {
	if err := route.Apply(ns, rules); err != nil { // brings loopback up
		return err
	}
	number, n, err := b.enter(ns)
	if err != nil {
		return err
	}
	defer n.handle.Close()
	defer b.store.lock(number)()
	if err := n.suits(rules.Capture); err != nil {
		return err
	}
	if err := b.enlist(ns, number, n, rules.Capture); err != nil {
		return err
	}
	l, err := b.store.lookup(number)
	if err != nil {
		return err
	}
	fresh := l == nil
	if !fresh {
		l.Close()
	}
	older := 0
	if fresh {
		if older, err = b.settle(ns, n); err != nil {
			return err
		}
	}
	if err := b.decide(ns, pod{netns: number, addresses: n.addresses, capture: rules.Capture}); err != nil {
		return err
	}
	if err := b.bypass(ns, number, n, !rules.Capture.Inbound); err != nil {
		return err
	}
	if err := n.enter(rules.Capture); err != nil {
		return err
	}
	if older > 0 { // some may have been opened meanwhile
		_, err = b.settle(ns, n)
	}
	return err
}

// enter opens what is worked on.
func (b *Backend) enter(ns *os.File) (uint32, *network, error) {
	number, err := inode(ns)
	if err != nil {
		return 0, nil, err
	}
	n, err := look(ns)
	return number, n, err
}

// decide attaches the decision, or puts it in the place of another one.
func (b *Backend) decide(ns *os.File, p pod) error {
	l, err := b.store.lookup(p.netns)
	if err != nil {
		return err
	}
	if l != nil {
		defer l.Close()
		if same, err := b.decides(l, p); err != nil || same {
			return err
		}
	}
	program, err := b.load(p)
	if err != nil {
		return err
	}
	defer program.Close()
	if l != nil {
		if err := l.Update(program); err != nil {
			return fmt.Errorf("replace the sk_lookup program: %w", err)
		}
		return nil
	}
	fresh, err := link.AttachNetNs(int(ns.Fd()), program)
	if err != nil {
		return fmt.Errorf("attach the sk_lookup program: %w", err)
	}
	return b.store.pin(fresh, p.netns, pinLookup)
}

// decides tells whether a link has the decision for p.
func (b *Backend) decides(l link.Link, p pod) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("look at a link: %w", err)
	}
	running, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return false, fmt.Errorf("look at the program of a link: %w", err)
	}
	defer running.Close()
	about, err := running.Info()
	if err != nil {
		return false, fmt.Errorf("look at the program of a link: %w", err)
	}
	return about.Name == nameOf(p), nil
}

// nameOf is a name for the decision for p that no other one has. The kernel keeps 15 characters.
func nameOf(p pod) string {
	const characters = 10
	sum := sha256.Sum256([]byte(program(p, 0).String()))
	return "mesh_" + hex.EncodeToString(sum[:])[:characters]
}

// bypass marks what arrives from outside, for pods whose inbound connections are left alone: otherwise the answers would be taken for
// connections of the application.
func (b *Backend) bypass(ns *os.File, number uint32, n *network, wanted bool) error {
	l, err := b.store.pinned(number, pinMarker)
	if err != nil {
		return err
	}
	if l != nil {
		l.Close()
	}
	sysctls := markSysctls(wanted)
	if !wanted {
		if l == nil {
			return nil
		}
		return errors.Join(b.store.unpin(number, pinMarker), route.Apply(ns, plan.Rules{Sysctls: sysctls}))
	}
	if err := route.Apply(ns, plan.Rules{Sysctls: sysctls}); err != nil {
		return err
	}
	if l != nil {
		return nil
	}
	program, err := ebpf.NewProgram(marker())
	if err != nil {
		return fmt.Errorf("load the program that marks what arrives: %w", err)
	}
	defer program.Close()
	var attached link.Link
	err = netns.Do(ns, func() error {
		var err error
		attached, err = link.AttachTCX(link.TCXOptions{Interface: n.device, Program: program, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if err != nil {
		return fmt.Errorf("attach the program that marks what arrives: %w", withRemedy(err, "tcx (Linux 6.6)"))
	}
	return b.store.pin(attached, number, pinMarker)
}

// markSysctls make answers carry the mark of what they answer.
func markSysctls(on bool) []plan.Sysctl {
	value := "0"
	if on {
		value = "1"
	}
	const why = "answers of the application leave by the way they came"
	return []plan.Sysctl{
		{Path: "net/ipv4/tcp_fwmark_accept", Value: value, Why: why},
		{Path: "net/ipv4/fwmark_reflect", Value: value, Why: why},
		{Path: "net/ipv6/fwmark_reflect", Value: value, Why: why, Optional: true},
	}
}

// Remove stops the redirection of new connections. Those that are open go on until they end.
func (b *Backend) Remove(ns *os.File) error {
	number, n, err := b.enter(ns)
	if err != nil {
		return err
	}
	defer n.handle.Close()
	defer b.store.lock(number)()
	l, err := b.store.lookup(number)
	if err != nil {
		return err
	}
	drift, err := n.differences(plan.Capture{})
	if err != nil {
		return err
	}
	if l == nil && len(drift) == 0 {
		return nil
	}
	if l != nil {
		l.Close()
	}
	if _, err := b.settle(ns, n); err != nil {
		return err
	}
	if err := n.enter(plan.Capture{}); err != nil {
		return err
	}
	if _, err := b.settle(ns, n); err != nil { // some may have been opened meanwhile
		return err
	}
	if err := b.bypass(ns, number, n, false); err != nil {
		return err
	}
	return b.store.forget(number)
}

// Clear takes everything away once another back end's rules are in place; open connections stay.
func (b *Backend) Clear(ns *os.File) error { return errors.Join(b.Remove(ns), dropKept(ns)) }

// Purge removes every trace; redirected connections that are still open are cut.
func (b *Backend) Purge(ns *os.File, rules plan.Rules) error {
	if err := b.Clear(ns); err != nil {
		return err
	}
	return route.Remove(ns, rules.Routes)
}

// Inspect compares the kernel with rules and returns one sentence per difference; none means in order.
func (b *Backend) Inspect(ns *os.File, rules plan.Rules) ([]string, error) {
	number, n, err := b.enter(ns)
	if err != nil {
		return nil, err
	}
	defer n.handle.Close()
	defer b.store.lock(number)()
	drift, err := b.inspectDecision(pod{netns: number, addresses: n.addresses, capture: rules.Capture})
	if err != nil {
		return nil, err
	}
	more, err := n.differences(rules.Capture)
	if err != nil {
		return nil, err
	}
	drift = append(drift, more...)
	if rules.Capture.Outbound {
		if more, err = b.inspectListeners(ns, number, n, rules.Capture); err != nil {
			return nil, err
		}
		drift = append(drift, more...)
	}
	more, err = route.Inspect(ns, rules)
	return append(drift, more...), err
}

func (b *Backend) inspectDecision(p pod) ([]string, error) {
	l, err := b.store.lookup(p.netns)
	if err != nil {
		return nil, err
	}
	if l != nil {
		defer l.Close()
	}
	marker, err := b.store.pinned(p.netns, pinMarker)
	if err != nil {
		return nil, err
	}
	if marker != nil {
		marker.Close()
	}
	switch {
	case l == nil && !p.capture.Outbound:
		return nil, nil
	case l == nil:
		return []string{"the sk_lookup program is missing"}, nil
	case !p.capture.Outbound:
		return []string{"an sk_lookup program is attached, want none"}, nil
	case (marker != nil) == p.capture.Inbound:
		return []string{"the program that marks what arrives is there or missing against the plan"}, nil
	}
	same, err := b.decides(l, p)
	if err != nil || same {
		return nil, err
	}
	return []string{"the sk_lookup program decides otherwise"}, nil
}

// Forget takes what is left of a pod whose network namespace is going away.
func (b *Backend) Forget(ns *os.File) error {
	number, err := inode(ns)
	if err != nil {
		return err
	}
	defer b.store.lock(number)()
	return b.store.forget(number)
}

// Sweep takes away what pods have left that went without a word, and returns how many there were.
func (b *Backend) Sweep() (int, error) { return b.store.sweep() }

// settle marks the connections that are open, so that they go on the way they go: those that the proxy has at its other end at home,
// those that are older than the redirection past it. It returns how many there are.
func (b *Backend) settle(ns *os.File, n *network) (int, error) {
	list, err := sockets.Connected(ns)
	if err != nil {
		return 0, err
	}
	type ends struct{ local, remote netip.AddrPort }
	here := map[ends]bool{}
	for _, s := range list {
		here[ends{s.Local, s.Remote}] = true
	}
	orders := map[uint64]order{}
	for _, s := range list {
		own := slices.Contains(n.addresses, s.Remote.Addr().WithZone("")) || s.Remote.Addr().IsLoopback()
		if s.Mark != 0 || own || len(orders) == maxOrders {
			continue
		}
		o := order{Mark: plan.OwnMark().Value, Slot: noSlot}
		if here[ends{s.Remote, s.Local}] {
			o.Mark = plan.ReturnMark().Value
		}
		orders[s.Cookie] = o
	}
	return len(orders), b.store.visitor.carryOut(ns, b.store.visitor.tcp, orders)
}
