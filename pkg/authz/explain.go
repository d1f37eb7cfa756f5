package authz

// Step is what one policy says of a connection.
type Step struct {
	Policy *Policy
	// Rule is the index of the first rule that holds, -1 when none does.
	Rule int
}

// Explain asks every policy of the set, also those that no longer matter to the verdict: DENY policies first, then those that allow,
// then those of a dry run.
func (s Set) Explain(c Conn) []Step {
	asked := c.subject()
	var out []Step
	for _, group := range [][]*Policy{s.deny, s.allow, s.dryRun} {
		for _, p := range group {
			out = append(out, Step{Policy: p, Rule: p.matchingRule(asked)})
		}
	}
	return out
}
