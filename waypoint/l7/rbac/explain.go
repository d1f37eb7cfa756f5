package rbac

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// Verdict is what the rules of a filter say.
type Verdict struct {
	// Action is ALLOW, DENY or LOG.
	Action string
	// Policies are the names of all there are, in the order in which they are asked.
	Policies []string
	// By is the first one that matches, "" when none does.
	By      string
	Allowed bool
}

// Explain tells what the enforced rules say, and those of a dry run; each is nil when there are none. Check decides the same.
func (f *Filter) Explain(i *exchange.Info) (enforced, shadow *Verdict) {
	if f == nil {
		return nil, nil
	}
	if f.dryRun {
		shadow = f.shadow.explain(i)
	}
	return f.rules.explain(i), shadow
}

// ExplainConn is Explain for a connection that carries no requests that we see.
func (f *Filter) ExplainConn(c *exchange.Conn) (enforced, shadow *Verdict) {
	return f.Explain(InfoOf(c))
}

func (r *Rules) explain(i *exchange.Info) *Verdict {
	if r == nil {
		return nil
	}
	v := &Verdict{Action: rbacv3.RBAC_Action_name[int32(r.action)]}
	for n := range r.policies {
		v.Policies = append(v.Policies, r.policies[n].name)
	}
	v.Allowed, v.By = r.check(i)
	return v
}
