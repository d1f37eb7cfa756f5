// Package authz compiles and matches L4 authorization policies. It is pure: the node proxy enforces with it, and whoever
// explains a decision calls the same code.
package authz

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Conn is what policies are asked about.
type Conn struct {
	// Source is the TCP peer; Destination is the real target, after any tunnel.
	Source, Destination netip.AddrPort
	// Identity of the peer as proven by mutual TLS; zero when there is none.
	Identity spiffe.ID
}

// Policy is a compiled istio.security.Authorization. It is immutable.
type Policy struct {
	proto *security.Authorization
	key   string
	rules []rule
}

// rule holds when all clauses hold.
type rule struct{ clauses []clause }

// clause holds when it has no match, or when one of them holds.
type clause struct{ matches []match }

// match holds when it has a field and all fields hold.
type match struct {
	fields []field
}

// field is one attribute with its positive or negated values.
type field struct {
	holds  func(subject) bool
	negate bool
}

// subject is a Conn prepared for matching.
type subject struct {
	source, destination netip.Addr
	port                uint16
	known               bool // has an identity
	id                  spiffe.ID
}

// Compile checks a policy and prepares it. The error names the field.
func Compile(p *security.Authorization) (*Policy, error) {
	if p.GetName() == "" {
		return nil, errors.New("policy has no name")
	}
	if p.GetScope() == security.Scope_NAMESPACE && p.GetNamespace() == "" {
		return nil, errors.New("policy of namespace scope has no namespace")
	}
	compiled := &Policy{proto: p, key: p.GetNamespace() + "/" + p.GetName()}
	for i, r := range p.GetRules() {
		var next rule
		for j, c := range r.GetClauses() {
			var nextClause clause
			for k, m := range c.GetMatches() {
				nextMatch, err := compileMatch(m)
				if err != nil {
					return nil, fmt.Errorf("rules[%d].clauses[%d].matches[%d].%w", i, j, k, err)
				}
				nextClause.matches = append(nextClause.matches, nextMatch)
			}
			next.clauses = append(next.clauses, nextClause)
		}
		compiled.rules = append(compiled.rules, next)
	}
	return compiled, nil
}

// Key is "namespace/name".
func (p *Policy) Key() string { return p.key }

// Proto is the policy as received. Do not change it.
func (p *Policy) Proto() *security.Authorization { return p.proto }

// Scope says which workloads the policy applies to.
func (p *Policy) Scope() security.Scope { return p.proto.GetScope() }

// Action is what a match means.
func (p *Policy) Action() security.Action { return p.proto.GetAction() }

// DryRun policies are evaluated and reported, never enforced.
func (p *Policy) DryRun() bool { return p.proto.GetDryRun() }

// matchingRule returns the index of the first rule that holds, or -1.
func (p *Policy) matchingRule(s subject) int {
	for i := range p.rules {
		if p.rules[i].holds(s) {
			return i
		}
	}
	return -1
}

func (r *rule) holds(s subject) bool {
	for i := range r.clauses {
		if !r.clauses[i].holds(s) {
			return false
		}
	}
	return true
}

func (c *clause) holds(s subject) bool {
	for i := range c.matches {
		if c.matches[i].holds(s) {
			return true
		}
	}
	return len(c.matches) == 0
}

func (m *match) holds(s subject) bool {
	for _, f := range m.fields {
		if f.holds(s) == f.negate {
			return false
		}
	}
	return len(m.fields) > 0
}

func compileMatch(p *security.Match) (match, error) {
	var m match
	var failure error
	add := func(name string, negate bool, holds func(subject) bool, err error) {
		if err != nil && failure == nil {
			failure = fmt.Errorf("%s: %w", name, err)
		}
		if holds != nil {
			m.fields = append(m.fields, field{holds: holds, negate: negate})
		}
	}
	for _, f := range []struct {
		name           string
		values, negate []*security.StringMatch
		of             func(subject) text
	}{
		{"namespaces", p.GetNamespaces(), p.GetNotNamespaces(), func(s subject) text { return text{s.id.Namespace} }},
		{"principals", p.GetPrincipals(), p.GetNotPrincipals(), subject.principal},
	} {
		holds, err := compileStrings(f.values, f.of)
		add(f.name, false, holds, err)
		holds, err = compileStrings(f.negate, f.of)
		add("not_"+f.name, true, holds, err)
	}
	for _, f := range []struct {
		name           string
		values, negate []*security.Address
		of             func(subject) netip.Addr
	}{
		{"source_ips", p.GetSourceIps(), p.GetNotSourceIps(), func(s subject) netip.Addr { return s.source }},
		{"destination_ips", p.GetDestinationIps(), p.GetNotDestinationIps(), func(s subject) netip.Addr { return s.destination }},
	} {
		holds, err := compileAddresses(f.values, f.of)
		add(f.name, false, holds, err)
		holds, err = compileAddresses(f.negate, f.of)
		add("not_"+f.name, true, holds, err)
	}
	add("destination_ports", false, compilePorts(p.GetDestinationPorts()), nil)
	add("not_destination_ports", true, compilePorts(p.GetNotDestinationPorts()), nil)
	add("service_accounts", false, compileAccounts(p.GetServiceAccounts()), nil)
	add("not_service_accounts", true, compileAccounts(p.GetNotServiceAccounts()), nil)
	return m, failure
}

// compileStrings is nil without values. Nothing matches a connection without an identity.
func compileStrings(values []*security.StringMatch, of func(subject) text) (func(subject) bool, error) {
	if len(values) == 0 {
		return nil, nil
	}
	for _, v := range values {
		if v.GetMatchType() == nil {
			return nil, errors.New("a value has no form: exact, prefix, suffix or presence")
		}
	}
	return func(s subject) bool {
		if !s.known {
			return false
		}
		actual := of(s)
		for _, v := range values {
			if stringHolds(v, actual) {
				return true
			}
		}
		return false
	}, nil
}

func stringHolds(v *security.StringMatch, actual text) bool {
	switch form := v.GetMatchType().(type) {
	case *security.StringMatch_Exact:
		return actual.length() == len(form.Exact) && actual.hasPrefix(form.Exact)
	case *security.StringMatch_Prefix:
		return actual.hasPrefix(form.Prefix)
	case *security.StringMatch_Suffix:
		return actual.hasSuffix(form.Suffix)
	case *security.StringMatch_Presence:
		return actual.length() > 0
	}
	return false
}

// principal is the identity as policies write it, trustDomain/ns/N/sa/S.
func (s subject) principal() text {
	return text{s.id.TrustDomain, "/ns/", s.id.Namespace, "/sa/", s.id.ServiceAccount}
}

// text is a string in pieces, so that asking about a connection makes no new one.
type text [5]string

func (t text) length() int {
	n := 0
	for _, piece := range t {
		n += len(piece)
	}
	return n
}

func (t text) hasPrefix(prefix string) bool {
	for _, piece := range t {
		if len(piece) >= len(prefix) {
			return piece[:len(prefix)] == prefix
		}
		if prefix[:len(piece)] != piece {
			return false
		}
		prefix = prefix[len(piece):]
	}
	return prefix == ""
}

func (t text) hasSuffix(suffix string) bool {
	for _, piece := range slices.Backward(t[:]) {
		if len(piece) >= len(suffix) {
			return piece[len(piece)-len(suffix):] == suffix
		}
		rest := len(suffix) - len(piece)
		if suffix[rest:] != piece {
			return false
		}
		suffix = suffix[:rest]
	}
	return suffix == ""
}

func compileAddresses(values []*security.Address, of func(subject) netip.Addr) (func(subject) bool, error) {
	if len(values) == 0 {
		return nil, nil
	}
	var prefixes []netip.Prefix
	for _, v := range values {
		ip, ok := netip.AddrFromSlice(v.GetAddress())
		if !ok {
			return nil, fmt.Errorf("an address of %d bytes is neither IPv4 nor IPv6", len(v.GetAddress()))
		}
		bits := int(v.GetLength())
		if ip.Is4In6() && bits >= 96 {
			ip, bits = ip.Unmap(), bits-96
		}
		prefix, err := ip.Prefix(bits)
		if err != nil {
			return nil, fmt.Errorf("%s/%d: %w", ip, v.GetLength(), err)
		}
		prefixes = append(prefixes, prefix)
	}
	return func(s subject) bool {
		actual := of(s)
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(actual) })
	}, nil
}

func compilePorts(values []uint32) func(subject) bool {
	if len(values) == 0 {
		return nil
	}
	return func(s subject) bool { return slices.Contains(values, uint32(s.port)) }
}

func compileAccounts(values []*security.ServiceAccountMatch) func(subject) bool {
	if len(values) == 0 {
		return nil
	}
	return func(s subject) bool {
		return s.known && slices.ContainsFunc(values, func(v *security.ServiceAccountMatch) bool {
			return v.GetNamespace() == s.id.Namespace && v.GetServiceAccount() == s.id.ServiceAccount
		})
	}
}
