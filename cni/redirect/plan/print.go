package plan

import (
	"fmt"
	"net/netip"
	"strings"
)

// String prints the rules one per line, in the vocabulary of nft and ip.
func (r Rules) String() string {
	var b strings.Builder
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "chain %s\n", c.Name())
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "  %s  # %s\n", rule, rule.Why)
		}
	}
	for _, p := range r.Routes {
		fmt.Fprintf(&b, "rule %s fwmark %s lookup %d priority %d\n", p.Family, p.Mark, p.Table, p.Priority)
		fmt.Fprintf(&b, "route %s local default dev lo table %d\n", p.Family, p.Table)
	}
	for _, s := range r.Sysctls {
		fmt.Fprintf(&b, "sysctl %s = %s  # %s\n", s.Path, s.Value, s.Why)
	}
	return b.String()
}

// Name is the chain's name in back ends that let us choose, e.g. "nat-output".
func (c Chain) Name() string { return c.Kind.String() + "-" + c.Hook.String() }

// String prints one rule without its reason.
func (r Rule) String() string {
	words := r.Match.words()
	return strings.Join(append(words, r.Action.String()), " ")
}

func (m Match) words() []string {
	var w []string
	add := func(set bool, format string, args ...any) {
		if set {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	add(m.Family != FamilyAny, "%s", m.Family)
	add(m.Proto != ProtoAny, "%s", m.Proto)
	add(m.Syn, "syn")
	add(m.Loopback, "lo")
	add(m.NotLoopback, "not lo")
	add(m.Interface != "", "iif %s", m.Interface)
	add(m.Source.IsValid(), "src %s", m.Source)
	add(m.Dest.IsValid(), "dst %s", m.Dest)
	add(m.NotDest.IsValid(), "dst not %s", m.NotDest)
	add(m.SourcePort != 0, "sport %d", m.SourcePort)
	add(m.DestPort != 0, "dport %d", m.DestPort)
	add(m.NotDestPort != 0, "dport not %d", m.NotDestPort)
	add(!m.Mark.IsZero(), "mark %s", m.Mark)
	add(!m.NotMark.IsZero(), "mark not %s", m.NotMark)
	add(!m.ConnMark.IsZero(), "connmark %s", m.ConnMark)
	add(!m.NotConnMark.IsZero(), "connmark not %s", m.NotConnMark)
	return w
}

// String prints the action.
func (a Action) String() string {
	switch a.Verb {
	case Redirect:
		return fmt.Sprintf("redirect to %d", a.Port)
	case SetConnMark:
		return fmt.Sprintf("set connmark %s", a.Mark)
	case RestoreMark:
		return "restore mark"
	case Divert:
		return fmt.Sprintf("divert to %s mark %s", netip.AddrPortFrom(a.Addr, a.Port), a.Mark)
	case SetZone:
		return fmt.Sprintf("set zone %d", a.Zone)
	default:
		return "accept"
	}
}

// String prints value/mask in hexadecimal.
func (m Mark) String() string { return fmt.Sprintf("0x%x/0x%x", m.Value, m.Mask) }

// String is "ip", "ip6" or "any".
func (f Family) String() string { return [...]string{"any", "ip", "ip6"}[f] }

// String is "any", "tcp" or "udp".
func (p Proto) String() string { return [...]string{"any", "tcp", "udp"}[p] }

// String is the hook's name in nft.
func (h Hook) String() string { return [...]string{"prerouting", "output"}[h] }

// String is the layer's name in iptables.
func (k Kind) String() string { return [...]string{"raw", "mangle", "nat"}[k] }
