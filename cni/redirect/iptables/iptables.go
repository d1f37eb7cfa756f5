// Package iptables puts a plan.Rules into a network namespace by iptables-restore, for nodes on which nftables cannot be used
// or must not be mixed with the rules of others. Both kinds of binary are known: those on nf_tables and the legacy ones.
//
// The chains survive un-enrolment for the same reason as in package nft: connections that were redirected live on only while
// the NAT table is in use.
package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/route"
)

// patience bounds one run of a binary.
const patience = 30 * time.Second

// Kinds of binary.
const (
	Auto   = ""
	NFT    = "nft"
	Legacy = "legacy"
)

// Tool is a family of iptables binaries. The zero value is not usable; see Find.
type Tool struct {
	// Kind is NFT or Legacy.
	Kind string
	// prefixes of the binaries: "iptables-nft", "ip6tables-nft"
	v4, v6 string
	// lockFile is the legacy binaries' lock.
	lockFile string
}

// ErrNoBinary means that there is no iptables here.
var ErrNoBinary = errors.New("no iptables-nft or iptables-legacy in PATH")

// Find chooses the binaries: the ones asked for; else the legacy ones if the namespace ns has rules of theirs, so that both kinds
// are not mixed on one node; else those on nf_tables.
func Find(kind string, ns *os.File, lockFile string) (Tool, error) {
	have := map[string]Tool{}
	for _, k := range []string{NFT, Legacy} {
		t := Tool{Kind: k, v4: "iptables-" + k, v6: "ip6tables-" + k, lockFile: lockFile}
		if _, err := exec.LookPath(t.v4 + "-restore"); err == nil {
			have[k] = t
		}
	}
	if kind != Auto {
		if t, ok := have[kind]; ok {
			return t, nil
		}
		return Tool{}, fmt.Errorf("iptables-%s: %w", kind, ErrNoBinary)
	}
	if t, ok := have[Legacy]; ok {
		text, err := t.Save(ns, plan.FamilyIPv4)
		if s := parseSaved(text); err == nil && s.other+len(s.lines) > 0 {
			return t, nil
		}
	}
	for _, k := range []string{NFT, Legacy} {
		if t, ok := have[k]; ok {
			return t, nil
		}
	}
	return Tool{}, ErrNoBinary
}

// Others returns the tools of the other kinds that are there: what they left is to be cleared.
func (t Tool) Others() []Tool {
	var out []Tool
	for _, k := range []string{NFT, Legacy} {
		if other, err := Find(k, nil, t.lockFile); err == nil && k != t.Kind {
			out = append(out, other)
		}
	}
	return out
}

func (t Tool) prefix(f plan.Family) string {
	if f == plan.FamilyIPv6 {
		return t.v6
	}
	return t.v4
}

// run executes a binary inside ns and returns what it prints.
func (t Tool) run(ns *os.File, input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, problem bytes.Buffer
	err := netns.Do(ns, func() error { // a child inherits the network namespace of the thread that starts it
		cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // one of our own names
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &problem
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "XTABLES_LOCKFILE=" + t.lockFile}
		return cmd.Run()
	})
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()))
	}
	return out.String(), nil
}

// Save lists the rules of all tables that are in use. Naming one would put a legacy table to use that is not, and make every
// packet pass it.
func (t Tool) Save(ns *os.File, f plan.Family) (string, error) {
	return t.run(ns, "", t.prefix(f)+"-save")
}

// Restore applies the lines in one step a table; what they do not name stays.
func (t Tool) Restore(ns *os.File, f plan.Family, input string) error {
	args := []string{"--noflush"}
	if t.Kind == Legacy {
		args = append(args, "--wait=10")
	}
	_, err := t.run(ns, input, t.prefix(f)+"-restore", args...)
	return err
}

// Backend is the iptables back end.
type Backend struct {
	Tool Tool
	// IPv6 is set when rules for IPv6 are planned too.
	IPv6 bool
}

func (b Backend) families() []plan.Family {
	if b.IPv6 {
		return []plan.Family{plan.FamilyIPv4, plan.FamilyIPv6}
	}
	return []plan.Family{plan.FamilyIPv4}
}

// Apply makes ns look like rules, whatever it looked like before; open connections stay. The caller keeps ns open.
func (b Backend) Apply(ns *os.File, rules plan.Rules) error {
	if err := route.Apply(ns, rules); err != nil {
		return err
	}
	for _, f := range b.families() {
		text, err := b.Tool.Save(ns, f)
		if err != nil {
			return err
		}
		if err := b.Tool.Restore(ns, f, Render(rules, f, parseSaved(text).jumps)); err != nil {
			return fmt.Errorf("apply %s rules: %w", f, err)
		}
	}
	return route.ForgetDNSFlows(ns)
}

// Remove stops the redirection of new connections. Those that are open keep working until they end: marks and routes stay.
func (b Backend) Remove(ns *os.File) error {
	err := b.each(ns, func(table plan.Kind, chain string, rules []string) string {
		if table == plan.Mangle {
			return undivert(rules)
		}
		return "-F " + chain + "\n"
	})
	if err != nil {
		return fmt.Errorf("flush rules: %w", err)
	}
	return route.ForgetDNSFlows(ns)
}

// undivert deletes those of a chain's rules that give new questions to the proxy: those of an interface.
func undivert(rules []string) string {
	var out strings.Builder
	for _, rule := range rules {
		if rest, ok := strings.CutPrefix(rule, "-A "); ok && strings.Contains(rest, " -i ") {
			out.WriteString("-D " + rest + "\n")
		}
	}
	return out.String()
}

// Purge removes every trace of the plan.
func (b Backend) Purge(ns *os.File, rules plan.Rules) error {
	if err := b.Clear(ns); err != nil {
		return err
	}
	return route.Remove(ns, rules.Routes)
}

// Clear deletes the chains. Connections that they redirected live on only where another back end's NAT rules are in place.
func (b Backend) Clear(ns *os.File) error {
	err := b.each(ns, func(_ plan.Kind, chain string, _ []string) string { return "-F " + chain + "\n-X " + chain + "\n" })
	if err != nil {
		return fmt.Errorf("delete chains: %w", err)
	}
	return nil
}

// each restores what lines says for every chain of ours that is there, given its rules. Before a chain can be deleted, the jump to it goes.
func (b Backend) each(ns *os.File, lines func(table plan.Kind, chain string, rules []string) string) error {
	for _, f := range b.families() {
		text, err := b.Tool.Save(ns, f)
		if err != nil {
			return err
		}
		have := parseSaved(text)
		var input strings.Builder
		for _, table := range tables() {
			var part strings.Builder
			for _, hook := range []plan.Hook{plan.Prerouting, plan.Output} {
				builtIn, own := hookOf(hook)
				rules, ok := have.lines[table.String()+" "+own]
				if !ok {
					continue
				}
				l := lines(table, own, rules)
				if strings.Contains(l, "-X") && have.jumps[jumpKey(table, builtIn)] {
					fmt.Fprintf(&part, "-D %s -j %s\n", builtIn, own)
				}
				part.WriteString(l)
			}
			if part.Len() > 0 {
				fmt.Fprintf(&input, "*%s\n%sCOMMIT\n", table, part.String())
			}
		}
		if input.Len() == 0 {
			continue
		}
		if err := b.Tool.Restore(ns, f, input.String()); err != nil {
			return err
		}
	}
	return nil
}

// Inspect compares the kernel with rules and returns one sentence per difference; none means in order.
func (b Backend) Inspect(ns *os.File, rules plan.Rules) ([]string, error) {
	var drift []string
	for _, f := range b.families() {
		text, err := b.Tool.Save(ns, f)
		if err != nil {
			return nil, err
		}
		drift = append(drift, compare(parseSaved(text), rules, f)...)
	}
	more, err := route.Inspect(ns, rules)
	return append(drift, more...), err
}

func compare(have saved, rules plan.Rules, f plan.Family) []string {
	var drift []string
	for _, table := range tables() {
		for _, hook := range []plan.Hook{plan.Prerouting, plan.Output} {
			builtIn, own := hookOf(hook)
			want, got := chainLines(rules, f, table, hook), have.lines[table.String()+" "+own]
			if len(want) > 0 && !have.jumps[jumpKey(table, builtIn)] {
				drift = append(drift, fmt.Sprintf("%s table %s: chain %s is not called", f, table, own))
			}
			if len(want) != len(got) {
				drift = append(drift, fmt.Sprintf("%s table %s: chain %s has %d rules, want %d", f, table, own, len(got), len(want)))
				continue
			}
			for i := range want {
				if !sameLine(want[i], got[i]) {
					drift = append(drift, fmt.Sprintf("%s table %s: rule %d of %s is not %q", f, table, i+1, own, want[i]))
				}
			}
		}
	}
	return drift
}
