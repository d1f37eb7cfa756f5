package authz_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// The naive reading of the policy language, written without looking at the compiled one: straight from the proto.

func naiveHolds(p *security.Authorization, c authz.Conn) bool {
	for _, r := range p.GetRules() {
		all := true
		for _, clause := range r.GetClauses() {
			any := len(clause.GetMatches()) == 0
			for _, m := range clause.GetMatches() {
				any = any || naiveMatch(m, c)
			}
			all = all && any
		}
		if all {
			return true
		}
	}
	return false
}

func naiveMatch(m *security.Match, c authz.Conn) bool {
	fields, ok := 0, true
	want := func(n int, found, negated bool) {
		if n > 0 {
			fields++
			ok = ok && found != negated
		}
	}
	principal := ""
	if !c.Identity.IsZero() {
		principal = c.Identity.TrustDomain + "/ns/" + c.Identity.Namespace + "/sa/" + c.Identity.ServiceAccount
	}
	for _, f := range []struct {
		list    []*security.StringMatch
		value   string
		negated bool
	}{
		{m.GetPrincipals(), principal, false},
		{m.GetNotPrincipals(), principal, true},
		{m.GetNamespaces(), c.Identity.Namespace, false},
		{m.GetNotNamespaces(), c.Identity.Namespace, true},
	} {
		found := false
		for _, s := range f.list {
			switch t := s.GetMatchType().(type) {
			case *security.StringMatch_Exact:
				found = found || principal != "" && f.value == t.Exact
			case *security.StringMatch_Prefix:
				found = found || principal != "" && strings.HasPrefix(f.value, t.Prefix)
			case *security.StringMatch_Suffix:
				found = found || principal != "" && strings.HasSuffix(f.value, t.Suffix)
			case *security.StringMatch_Presence:
				found = found || principal != "" && f.value != ""
			}
		}
		want(len(f.list), found, f.negated)
	}
	for _, f := range []struct {
		list    []*security.ServiceAccountMatch
		negated bool
	}{{m.GetServiceAccounts(), false}, {m.GetNotServiceAccounts(), true}} {
		found := false
		for _, s := range f.list {
			found = found || principal != "" && s.GetNamespace() == c.Identity.Namespace && s.GetServiceAccount() == c.Identity.ServiceAccount
		}
		want(len(f.list), found, f.negated)
	}
	for _, f := range []struct {
		list    []*security.Address
		value   netip.Addr
		negated bool
	}{
		{m.GetSourceIps(), c.Source.Addr(), false},
		{m.GetNotSourceIps(), c.Source.Addr(), true},
		{m.GetDestinationIps(), c.Destination.Addr(), false},
		{m.GetNotDestinationIps(), c.Destination.Addr(), true},
	} {
		found := false
		for _, a := range f.list {
			ip, _ := netip.AddrFromSlice(a.GetAddress())
			same := ip.BitLen() == f.value.BitLen()
			x, y := ip.AsSlice(), f.value.AsSlice()
			for bit := 0; same && bit < int(a.GetLength()); bit++ {
				same = (x[bit/8]^y[bit/8])&(0x80>>(bit%8)) == 0
			}
			found = found || same
		}
		want(len(f.list), found, f.negated)
	}
	for _, f := range []struct {
		list    []uint32
		negated bool
	}{{m.GetDestinationPorts(), false}, {m.GetNotDestinationPorts(), true}} {
		found := false
		for _, p := range f.list {
			found = found || p == uint32(c.Destination.Port())
		}
		want(len(f.list), found, f.negated)
	}
	return fields > 0 && ok
}

func naiveAllowed(policies []*security.Authorization, c authz.Conn) bool {
	allowPolicies, allowed := 0, false
	for _, p := range policies {
		switch {
		case p.GetDryRun():
		case p.GetAction() == security.Action_DENY:
			if naiveHolds(p, c) {
				return false
			}
		default:
			allowPolicies++
			allowed = allowed || naiveHolds(p, c)
		}
	}
	return allowPolicies == 0 || allowed
}

// dice makes choices from the fuzzer's bytes.
type dice struct{ bytes []byte }

func (d *dice) roll(n int) int {
	if len(d.bytes) == 0 {
		return 0
	}
	b := d.bytes[0]
	d.bytes = d.bytes[1:]
	return int(b) % n
}

func some[T any](d *dice, most int, one func() T) []T {
	var out []T
	for range d.roll(most + 1) {
		out = append(out, one())
	}
	return out
}

func (d *dice) text() string {
	return []string{"", "a", "ab", "td/ns/a/sa/b", "td/", "/sa/b", "b"}[d.roll(7)]
}

func (d *dice) stringMatch() *security.StringMatch {
	switch d.roll(4) {
	case 0:
		return &security.StringMatch{MatchType: &security.StringMatch_Exact{Exact: d.text()}}
	case 1:
		return &security.StringMatch{MatchType: &security.StringMatch_Prefix{Prefix: d.text()}}
	case 2:
		return &security.StringMatch{MatchType: &security.StringMatch_Suffix{Suffix: d.text()}}
	}
	return &security.StringMatch{MatchType: &security.StringMatch_Presence{}}
}

func (d *dice) ip() netip.Addr {
	return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}[d.roll(5)]
}

func (d *dice) address() *security.Address {
	ip := d.ip()
	return &security.Address{Address: ip.AsSlice(), Length: uint32(d.roll(ip.BitLen() + 1))}
}

func (d *dice) port() uint32 { return []uint32{80, 443, 0}[d.roll(3)] }

func (d *dice) account() *security.ServiceAccountMatch {
	return &security.ServiceAccountMatch{Namespace: d.text(), ServiceAccount: d.text()}
}

func (d *dice) match() *security.Match {
	return &security.Match{
		Namespaces: some(d, 2, d.stringMatch), NotNamespaces: some(d, 1, d.stringMatch), Principals: some(d, 2, d.stringMatch), NotPrincipals: some(d, 1, d.stringMatch),
		SourceIps: some(d, 2, d.address), NotSourceIps: some(d, 1, d.address), DestinationIps: some(d, 1, d.address), NotDestinationIps: some(d, 1, d.address),
		DestinationPorts: some(d, 2, d.port), NotDestinationPorts: some(d, 1, d.port), ServiceAccounts: some(d, 1, d.account), NotServiceAccounts: some(d, 1, d.account),
	}
}

func (d *dice) policy() *security.Authorization {
	return &security.Authorization{
		Name: "p", Namespace: "n", Action: security.Action(d.roll(2)), DryRun: d.roll(8) == 7,
		Rules: some(d, 3, func() *security.Rule {
			return &security.Rule{Clauses: some(d, 2, func() *security.Clause { return &security.Clause{Matches: some(d, 2, d.match)} })}
		}),
	}
}

func (d *dice) conn() authz.Conn {
	c := authz.Conn{Source: netip.AddrPortFrom(d.ip(), 1234), Destination: netip.AddrPortFrom(d.ip(), uint16(d.port()))}
	if d.roll(3) > 0 {
		c.Identity = spiffe.ID{TrustDomain: "td", Namespace: []string{"a", "ab"}[d.roll(2)], ServiceAccount: []string{"b", "ab"}[d.roll(2)]}
	}
	return c
}

func FuzzCheckAgainstANaiveReading(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 0, 1, 1, 3})
	f.Add([]byte("the quick brown fox jumps over the lazy dog, and then over its shadow, twice"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &dice{data}
		c := d.conn()
		protos := some(d, 3, d.policy)
		var compiled []*authz.Policy
		for _, p := range protos {
			one, err := authz.Compile(p)
			if err != nil {
				t.Fatalf("%v: %v", p, err)
			}
			compiled = append(compiled, one)
		}
		verdict := authz.Select(compiled, nil, nil).Check(c)
		if want := naiveAllowed(protos, c); verdict.Allowed != want {
			t.Errorf("allowed %t (%s), want %t: %v by %v", verdict.Allowed, verdict.Reason, want, c, protos)
		}
		if !verdict.Allowed && verdict.Reason == "" {
			t.Error("a refusal without a reason")
		}
	})
}
