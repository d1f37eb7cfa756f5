package app

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nodeagent"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/host"
	"github.com/isthmus-mesh/isthmus/cni/redirect/iptables"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// nodeRules are those of the node itself, whatever makes them.
type nodeRules interface {
	Install(pods []netip.Addr) error
	Add(pod []netip.Addr) error
	Remove(pod []netip.Addr) error
	Purge() error
}

// openHost opens the network namespace of the node.
func (c Config) openHost() (*os.File, error) {
	if c.HostProc == "" {
		return netns.Host()
	}
	file, err := netns.OfProcess(c.HostProc, 1)
	if err != nil {
		return nil, fmt.Errorf("the node's network namespace: %w (mount the node's /proc at %s, and give the container SYS_PTRACE and SYS_ADMIN)", err, c.HostProc)
	}
	return file, nil
}

// xtablesLock is the lock of the legacy binaries; the node's own cannot be written to from a container.
func (c Config) xtablesLock() string { return filepath.Join(filepath.Dir(c.StateFile), "xtables.lock") }

// choose decides on the back ends for pods and the one for the node. What the others have left is cleared.
func (d *daemon) choose(metrics *nodeagent.Metrics) (redirect.Chosen, nodeRules, error) {
	want := d.cfg.Backend
	if want == redirect.SKLookup {
		want = ""
	}
	chosen, rules, err := d.chooseFor(want)
	if err != nil {
		return chosen, rules, err
	}
	d.chooseEarly(&chosen, metrics)
	return chosen, d.withBranches(rules), nil
}

// withBranches adds the ways to pods behind interfaces of the cloud's network, or takes away what there was of them.
func (d *daemon) withBranches(rules nodeRules) nodeRules {
	branches := host.NewBranch(d.hostNS, d.cfg.Redirect.IPv6, telemetry.Scoped(d.cfg.Log, "agent"))
	if d.cfg.NoBranchProbes {
		return succeeding{rules, []nodeRules{branches}}
	}
	return beside{rules, branches}
}

// chooseEarly adds sklookup: for pods that start, unless another back end is asked for; for pods that have it from before in any case.
func (d *daemon) chooseEarly(chosen *redirect.Chosen, metrics *nodeagent.Metrics) {
	wanted := d.cfg.Backend == redirect.SKLookup || d.cfg.Backend == ""
	if _, err := os.Stat(d.cfg.BPFDir); err != nil && !wanted {
		return
	}
	backend, err := sklookup.Open(d.cfg.BPFDir)
	if err != nil {
		if wanted {
			metrics.FellBack(redirect.Reason(err))
			tell := d.cfg.Log.Info
			if d.cfg.Backend == redirect.SKLookup {
				tell = d.cfg.Log.Warn
			}
			tell("redirection of all pods by "+chosen.Name, "reason", err)
		}
		return
	}
	d.early = backend
	if swept, err := backend.Sweep(); err != nil || swept > 0 {
		d.cfg.Log.Info("what pods have left in the kernel that are gone is taken away", "pods", swept, "error", err)
	}
	chosen.Before = append(chosen.Before, backend)
	if wanted {
		chosen.Early, chosen.EarlyName = backend, redirect.SKLookup
		d.cfg.Log.Info("redirection of pods that start by sklookup, of others by "+chosen.Name, "pins", d.cfg.BPFDir)
	}
}

// chooseFor decides on the back end that can serve every pod.
func (d *daemon) chooseFor(want string) (redirect.Chosen, nodeRules, error) {
	lock := d.cfg.xtablesLock()
	if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil {
		return redirect.Chosen{}, nil, fmt.Errorf("directory of the agent's files: %w", err)
	}
	nftErr := nft.Supported(d.hostNS)
	if want == "" {
		want = redirect.NFT
		if nftErr != nil {
			want = redirect.IPTables
			d.cfg.Log.Warn("redirection by iptables", "reason", nftErr)
		}
	}
	byNFT, nodeByNFT := redirect.Backend(nft.Backend{}), nodeRules(host.New(d.hostNS, d.cfg.Redirect))
	tool, toolErr := iptables.Find(d.cfg.IPTables, d.hostNS, lock)
	switch want {
	case redirect.NFT:
		if nftErr != nil {
			return redirect.Chosen{}, nil, fmt.Errorf("redirection by nft: %w", nftErr)
		}
		if toolErr != nil {
			return redirect.Chosen{Backend: byNFT, Name: redirect.NFT}, nodeByNFT, nil // nor can there be rules of iptables
		}
		return redirect.Chosen{Backend: byNFT, Name: redirect.NFT, Before: d.iptablesBackends(tool)}, succeeding{nodeByNFT, d.iptablesOnNode(tool)}, nil
	case redirect.IPTables:
		if toolErr != nil {
			return redirect.Chosen{}, nil, fmt.Errorf("redirection by iptables: %w", toolErr)
		}
	default:
		return redirect.Chosen{}, nil, fmt.Errorf("redirection by %q: there are sklookup, nft and iptables", want)
	}
	d.cfg.Log.Info("redirection by iptables", "binaries", tool.Kind)
	all := d.iptablesBackends(tool)
	before := all[1:]
	if nftErr == nil {
		before = append(before, byNFT)
	}
	backend := redirect.Chosen{Backend: all[0], Name: redirect.IPTables + "-" + tool.Kind, Before: before}
	own, err := host.NewIPTables(d.hostNS, tool, d.cfg.Redirect)
	switch {
	case err == nil && nftErr == nil:
		return backend, succeeding{own, append(d.iptablesOnNode(tool)[1:], nodeByNFT)}, nil
	case err == nil:
		return backend, own, nil
	case nftErr == nil:
		d.cfg.Log.Warn("the node's own rules are made by nft", "reason", err)
		return backend, nodeByNFT, nil
	}
	return redirect.Chosen{}, nil, errors.Join(err, nftErr)
}

// iptablesBackends are that of the tool, and those of the other kinds of binary.
func (d *daemon) iptablesBackends(tool iptables.Tool) []redirect.Backend {
	out := []redirect.Backend{iptables.Backend{Tool: tool, IPv6: d.cfg.Redirect.IPv6}}
	for _, other := range tool.Others() {
		out = append(out, iptables.Backend{Tool: other, IPv6: d.cfg.Redirect.IPv6})
	}
	return out
}

func (d *daemon) iptablesOnNode(tool iptables.Tool) []nodeRules {
	var out []nodeRules
	for _, t := range append([]iptables.Tool{tool}, tool.Others()...) {
		if rules, err := host.NewIPTables(d.hostNS, t, d.cfg.Redirect); err == nil {
			out = append(out, rules)
		}
	}
	return out
}

// succeeding are rules of the node in place of those that others may have made before.
type succeeding struct {
	nodeRules
	before []nodeRules
}

// Install implements nodeRules.
func (s succeeding) Install(pods []netip.Addr) error {
	if err := s.nodeRules.Install(pods); err != nil {
		return err
	}
	for _, old := range s.before {
		if err := old.Purge(); err != nil {
			return fmt.Errorf("clear what another back end has left: %w", err)
		}
	}
	return nil
}

// beside are rules of the node that have nothing to do with each other.
type beside []nodeRules

func (b beside) each(do func(nodeRules) error) error {
	var problems []error
	for _, r := range b {
		problems = append(problems, do(r))
	}
	return errors.Join(problems...)
}

// Install implements nodeRules.
func (b beside) Install(pods []netip.Addr) error {
	return b.each(func(r nodeRules) error { return r.Install(pods) })
}

// Add implements nodeRules.
func (b beside) Add(pod []netip.Addr) error {
	return b.each(func(r nodeRules) error { return r.Add(pod) })
}

// Remove implements nodeRules.
func (b beside) Remove(pod []netip.Addr) error {
	return b.each(func(r nodeRules) error { return r.Remove(pod) })
}

// Purge implements nodeRules.
func (b beside) Purge() error { return b.each(nodeRules.Purge) }
