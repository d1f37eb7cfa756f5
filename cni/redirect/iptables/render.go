package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// Names of the chains, those that other implementations of ambient redirection use and that people look for.
const (
	chainPrerouting = "ISTIO_PRERT"
	chainOutput     = "ISTIO_OUTPUT"
)

// tables in the order in which they are restored: marks and zones are there before anything is redirected.
func tables() []plan.Kind { return []plan.Kind{plan.Raw, plan.Mangle, plan.NAT} }

// hookOf returns the built-in chain of a hook and ours.
func hookOf(h plan.Hook) (builtIn, own string) {
	if h == plan.Output {
		return "OUTPUT", chainOutput
	}
	return "PREROUTING", chainPrerouting
}

// Render prints the rules of one family (IPv4 or IPv6) as input of iptables-restore --noflush. A chain that is declared is
// emptied first; jumps says which jumps are there already, keyed "table chain".
func Render(rules plan.Rules, family plan.Family, jumps map[string]bool) string {
	var b strings.Builder
	for _, table := range tables() {
		fmt.Fprintf(&b, "*%s\n:%s - [0:0]\n:%s - [0:0]\n", table, chainPrerouting, chainOutput)
		for _, hook := range []plan.Hook{plan.Prerouting, plan.Output} {
			builtIn, own := hookOf(hook)
			if !jumps[jumpKey(table, builtIn)] {
				fmt.Fprintf(&b, "-A %s -j %s\n", builtIn, own)
			}
			for _, line := range chainLines(rules, family, table, hook) {
				fmt.Fprintf(&b, "%s\n", line)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

func jumpKey(table plan.Kind, builtIn string) string { return table.String() + " " + builtIn }

// chainLines are the lines of one of our chains.
func chainLines(rules plan.Rules, family plan.Family, table plan.Kind, hook plan.Hook) []string {
	var out []string
	for _, chain := range rules.Chains {
		if chain.Kind != table || chain.Hook != hook {
			continue
		}
		for _, rule := range chain.Rules {
			if concerns(rule.Match, family) {
				out = append(out, line(hook, rule))
			}
		}
	}
	return out
}

// concerns tells whether a rule has a place among those of a family.
func concerns(m plan.Match, family plan.Family) bool {
	if m.Family != plan.FamilyAny && m.Family != family {
		return false
	}
	for _, a := range []netip.Addr{m.Source, m.Dest, m.NotDest} {
		if a.IsValid() && a.Is4() != (family == plan.FamilyIPv4) {
			return false
		}
	}
	return true
}

// line prints a rule the way iptables-save does.
func line(hook plan.Hook, rule plan.Rule) string {
	_, own := hookOf(hook)
	words := append([]string{"-A", own}, match(hook, rule.Match)...)
	if rule.Why != "" {
		words = append(words, "-m", "comment", "--comment", strconv.Quote(rule.Why))
	}
	return strings.Join(append(words, target(rule.Action)...), " ")
}

func match(hook plan.Hook, m plan.Match) []string {
	var w []string
	add := func(set, not bool, words ...string) {
		if set && not {
			w = append(w, "!")
		}
		if set {
			w = append(w, words...)
		}
	}
	add(m.Source.IsValid(), false, "-s", prefixOf(m.Source))
	add(m.Dest.IsValid(), false, "-d", prefixOf(m.Dest))
	add(m.NotDest.IsValid(), true, "-d", prefixOf(m.NotDest))
	device := "-i"
	if hook == plan.Output {
		device = "-o"
	}
	add(m.Loopback || m.NotLoopback, m.NotLoopback, device, "lo")
	add(m.Interface != "", false, device, m.Interface)
	proto := m.Proto.String()
	add(m.Proto != plan.ProtoAny, false, "-p", proto)
	add(m.SourcePort != 0 || m.DestPort != 0 || m.NotDestPort != 0 || m.Syn, false, "-m", proto)
	add(m.SourcePort != 0, false, "--sport", number(m.SourcePort))
	add(m.DestPort != 0, false, "--dport", number(m.DestPort))
	add(m.NotDestPort != 0, true, "--dport", number(m.NotDestPort))
	add(m.Syn, false, "--tcp-flags", "FIN,SYN,RST,ACK", "SYN")
	add(!m.Mark.IsZero(), false, "-m", "mark", "--mark", m.Mark.String())
	add(!m.ConnMark.IsZero(), false, "-m", "connmark", "--mark", m.ConnMark.String())
	if !m.NotMark.IsZero() { // the exclamation mark comes after the match's name
		w = append(w, "-m", "mark", "!", "--mark", m.NotMark.String())
	}
	if !m.NotConnMark.IsZero() {
		w = append(w, "-m", "connmark", "!", "--mark", m.NotConnMark.String())
	}
	return w
}

func target(a plan.Action) []string {
	switch a.Verb {
	case plan.Redirect:
		return []string{"-j", "REDIRECT", "--to-ports", number(a.Port)}
	case plan.SetConnMark:
		return []string{"-j", "CONNMARK", "--set-xmark", a.Mark.String()}
	case plan.RestoreMark:
		return []string{"-j", "CONNMARK", "--restore-mark", "--nfmask", "0xffffffff", "--ctmask", "0xffffffff"}
	case plan.Divert:
		return []string{"-j", "TPROXY", "--on-port", number(a.Port), "--on-ip", a.Addr.String(), "--tproxy-mark", a.Mark.String()}
	case plan.SetZone:
		return []string{"-j", "CT", "--zone", number(a.Zone)}
	case plan.Accept:
		return []string{"-j", "ACCEPT"}
	}
	return []string{"-j", "ACCEPT"}
}

func number(n uint16) string { return strconv.Itoa(int(n)) }

func prefixOf(a netip.Addr) string {
	return netip.PrefixFrom(a, a.BitLen()).String()
}

// saved is what iptables-save prints, as far as it concerns us.
type saved struct {
	jumps map[string]bool     // by jumpKey
	lines map[string][]string // of our chains, by "table chain"; an empty list means the chain is there
	other int                 // rules and chains of others
}

func parseSaved(text string) saved {
	s := saved{jumps: map[string]bool{}, lines: map[string][]string{}}
	table := ""
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		fields := strings.Fields(l)
		switch {
		case strings.HasPrefix(l, "*"):
			table = l[1:]
		case strings.HasPrefix(l, ":") && len(fields) > 1:
			if isOwn(fields[0][1:]) {
				key := table + " " + fields[0][1:]
				s.lines[key] = append([]string{}, s.lines[key]...)
			} else if fields[1] == "-" {
				s.other++
			}
		case strings.HasPrefix(l, "-A ") && len(fields) > 2:
			if len(fields) == 4 && fields[2] == "-j" && isOwn(fields[3]) {
				s.jumps[table+" "+fields[1]] = true
			} else if isOwn(fields[1]) {
				s.lines[table+" "+fields[1]] = append(s.lines[table+" "+fields[1]], l)
			} else {
				s.other++
			}
		}
	}
	return s
}

func isOwn(chain string) bool { return chain == chainPrerouting || chain == chainOutput }

// sameLine compares two rules whatever the order of their words: versions of iptables-save differ in it, and in what they escape.
func sameLine(a, b string) bool {
	sorted := func(s string) []string {
		words := strings.Fields(strings.ReplaceAll(s, `\'`, `'`))
		slices.Sort(words)
		return words
	}
	return slices.Equal(sorted(a), sorted(b))
}
