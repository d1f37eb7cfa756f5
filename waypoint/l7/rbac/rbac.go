package rbac

import (
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// matcher is a permission or a principal.
type matcher func(i *exchange.Info) bool

// policy is who may do what: one of the permissions and one of the principals.
type policy struct {
	name        string
	permissions []matcher
	principals  []matcher
}

// Rules is a compiled envoy.config.rbac.v3.RBAC.
type Rules struct {
	action   rbacv3.RBAC_Action
	policies []policy // by name, the order in which Envoy asks them
}

// Filter is a compiled RBAC filter.
type Filter struct {
	rules, shadow *Rules
	shadowPrefix  string
	key           string // of the metadata
	dryRun        bool   // the shadow rules are policies of a dry run
}

// Where Envoy's filters leave what shadow rules said.
const (
	metadataKey = "envoy.filters.http.rbac"
	networkKey  = "envoy.filters.network.rbac"
	// customPrefix marks shadow rules that are no dry run: they say what an authorizer is asked about.
	customPrefix = "istio_ext_authz_"
)

// Compile compiles the HTTP filter.
func Compile(p *httprbacv3.RBAC) (*Filter, error) {
	return compileFilter(p.GetRules(), p.GetShadowRules(), p.GetShadowRulesStatPrefix(), metadataKey)
}

// CompileNetwork compiles the network filter. It decides once for a connection, when its first bytes come.
func CompileNetwork(p *netrbacv3.RBAC) (*Filter, error) {
	return compileFilter(p.GetRules(), p.GetShadowRules(), p.GetShadowRulesStatPrefix(), networkKey)
}

func compileFilter(rules, shadow *rbacv3.RBAC, prefix, key string) (*Filter, error) {
	f := &Filter{shadowPrefix: prefix, key: key, dryRun: !strings.HasPrefix(prefix, customPrefix)}
	var err error
	if f.rules, err = compileRules(rules); err != nil {
		return nil, strict.At(err, "rules")
	}
	if f.shadow, err = compileRules(shadow); err != nil {
		return nil, strict.At(err, "shadow_rules")
	}
	return f, nil
}

func compileRules(p *rbacv3.RBAC) (*Rules, error) {
	if p == nil {
		return nil, nil
	}
	r := &Rules{action: p.GetAction()}
	for name, pol := range p.GetPolicies() {
		c := policy{name: name}
		for i, perm := range pol.GetPermissions() {
			m, err := permission(perm)
			if err != nil {
				return nil, strict.AtKey(strict.AtIndex(err, "permissions", i), "policies", name)
			}
			c.permissions = append(c.permissions, m)
		}
		for i, id := range pol.GetPrincipals() {
			m, err := principal(id)
			if err != nil {
				return nil, strict.AtKey(strict.AtIndex(err, "principals", i), "policies", name)
			}
			c.principals = append(c.principals, m)
		}
		r.policies = append(r.policies, c)
	}
	slices.SortFunc(r.policies, func(a, b policy) int { return strings.Compare(a.name, b.name) })
	return r, nil
}

// match returns the first policy that matches.
func (r *Rules) match(i *exchange.Info) *policy {
	for n := range r.policies {
		p := &r.policies[n]
		if anyOf(p.permissions, i) && anyOf(p.principals, i) {
			return p
		}
	}
	return nil
}

func anyOf(ms []matcher, i *exchange.Info) bool {
	for _, m := range ms {
		if m(i) {
			return true
		}
	}
	return false
}

// check is whether the rules allow it, and by which policy ("" is none).
func (r *Rules) check(i *exchange.Info) (allowed bool, by string) {
	p := r.match(i)
	if p != nil {
		by = p.name
	}
	switch r.action {
	case rbacv3.RBAC_ALLOW:
		return p != nil, by
	case rbacv3.RBAC_DENY:
		return p == nil, by
	}
	return true, by
}

// Check is whether the request may pass. denied is the name of the policy that says no, "none" when it is that none allows it.
func (f *Filter) Check(i *exchange.Info) (denied string, ok bool) {
	if f == nil {
		return "", true
	}
	if f.shadow != nil {
		result := "denied"
		allowed, by := f.shadow.check(i)
		if allowed {
			result = "allowed"
		}
		if by != "" {
			i.SetMetadata(f.key, f.shadowPrefix+"shadow_effective_policy_id", by)
		}
		i.SetMetadata(f.key, f.shadowPrefix+"shadow_engine_result", result)
		if f.dryRun {
			i.Shadows = append(i.Shadows, exchange.Shadow{Policy: by, Allowed: allowed})
		}
	}
	if f.rules == nil {
		return "", true
	}
	allowed, by := f.rules.check(i)
	if allowed {
		return "", true
	}
	if by == "" {
		by = "none"
	}
	return by, false
}

// DryRun is whether it has policies of a dry run.
func (f *Filter) DryRun() bool { return f.dryRun && f.shadow != nil }

// InfoOf is what is known of a connection that carries no requests that we see.
func InfoOf(c *exchange.Conn) *exchange.Info {
	return &exchange.Info{Head: &httpmsg.Head{}, Conn: c, Remote: c.Source}
}

// CheckConn is Check for such a connection.
func (f *Filter) CheckConn(c *exchange.Conn) (denied string, ok bool) { return f.Check(InfoOf(c)) }

// Details is what an access log says of a denial.
func Details(policy string) string {
	return "rbac_access_denied_matched_policy[" + strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\v' || r == '\f' {
			return '_'
		}
		return r
	}, policy) + "]"
}
