package authz

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
)

// Set is the policies that apply to one workload. It is immutable.
type Set struct {
	deny, allow, dryRun []*Policy
}

// Select gathers the mesh's, the namespace's and the workload's own policies. Their order is the order of evaluation
// within an action.
func Select(global, namespace, workload []*Policy) Set {
	var s Set
	for _, group := range [][]*Policy{global, namespace, workload} {
		for _, p := range group {
			switch {
			case p.DryRun():
				s.dryRun = append(s.dryRun, p)
			case p.Action() == security.Action_DENY:
				s.deny = append(s.deny, p)
			default:
				s.allow = append(s.allow, p)
			}
		}
	}
	return s
}

// Verdict is the outcome for one connection.
type Verdict struct {
	Allowed bool
	// Policy that decided, "namespace/name", and the index of its rule; "" and -1 when none did.
	Policy string
	Rule   int
	// Reason is for people, such as "explicitly denied by shop/deny rule[0]".
	Reason string
	// DryRun holds what the dry-run policies that match would have done.
	DryRun []Verdict
}

// Check decides: a DENY policy that matches refuses; else, if there are ALLOW policies, one must match; else it is allowed.
func (s Set) Check(c Conn) Verdict {
	asked := c.subject()
	verdict := s.decide(asked)
	for _, p := range s.dryRun {
		if i := p.matchingRule(asked); i >= 0 {
			verdict.DryRun = append(verdict.DryRun, Verdict{
				Allowed: p.Action() == security.Action_ALLOW, Policy: p.key, Rule: i,
				Reason: fmt.Sprintf("dry run: %s rule[%d] would %s", p.key, i, verb(p.Action())),
			})
		}
	}
	return verdict
}

// subject prepares a connection for matching.
func (c Conn) subject() subject {
	return subject{
		source: c.Source.Addr().Unmap(), destination: c.Destination.Addr().Unmap(), port: c.Destination.Port(),
		known: !c.Identity.IsZero(), id: c.Identity,
	}
}

func (s Set) decide(asked subject) Verdict {
	for _, p := range s.deny {
		if i := p.matchingRule(asked); i >= 0 {
			return Verdict{Policy: p.key, Rule: i, Reason: fmt.Sprintf("explicitly denied by %s rule[%d]", p.key, i)}
		}
	}
	if len(s.allow) == 0 {
		return Verdict{Allowed: true, Rule: -1}
	}
	for _, p := range s.allow {
		if i := p.matchingRule(asked); i >= 0 {
			return Verdict{Allowed: true, Policy: p.key, Rule: i}
		}
	}
	return Verdict{Rule: -1, Reason: fmt.Sprintf("allow policies exist (%s), but none allowed", names(s.allow))}
}

func verb(action security.Action) string {
	if action == security.Action_DENY {
		return "deny"
	}
	return "allow"
}

// names lists up to three policies.
func names(policies []*Policy) string {
	const most = 3
	out := ""
	for i, p := range policies {
		if i == most {
			return fmt.Sprintf("%s and %d more", out, len(policies)-most)
		}
		if i > 0 {
			out += ", "
		}
		out += p.key
	}
	return out
}
