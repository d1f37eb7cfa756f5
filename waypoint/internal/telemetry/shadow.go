package telemetry

import (
	"regexp"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// policyName is how the control plane names the rules of a policy.
var policyName = regexp.MustCompile(`^ns\[(.*)\]-policy\[(.*)\]-rule\[.*\]$`)

// shadows counts what policies of a dry run said. There are as many labels as there are policies.
func (o *Observer) shadows(all []l7.Shadow) {
	for _, s := range all {
		decision := "deny"
		if s.Allowed {
			decision = "allow"
		}
		key := shadowKey{s.Policy, decision}
		c, ok := o.shadowed.Load(key)
		if !ok {
			policy := "none"
			if m := policyName.FindStringSubmatch(s.Policy); m != nil {
				policy = m[1] + "/" + m[2]
			} else if s.Policy != "" {
				policy = s.Policy
			}
			c, _ = o.shadowed.LoadOrStore(key, o.metrics.shadow.WithLabelValues(policy, decision))
		}
		c.(interface{ Inc() }).Inc()
	}
}

type shadowKey struct{ rule, decision string }
