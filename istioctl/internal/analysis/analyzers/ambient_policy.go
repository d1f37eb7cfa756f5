package analyzers

import (
	"net/netip"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// ztunnelPolicies asks the translation what is left of each policy at layer 4.
func ztunnelPolicies(s *analysis.Snapshot) (out analysis.Messages) {
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		if ap.Spec.GetTargetRef() != nil || len(ap.Spec.GetTargetRefs()) > 0 {
			continue
		}
		there, waypoint := enforced(s, ap)
		if !there {
			continue
		}
		hint := ""
		if waypoint != "" {
			hint = " (such as that of what waypoint " + waypoint + " serves)"
		}
		p := ambient.AuthorizationPolicy(s.Ambient, ap)
		switch {
		case p.Status.Accepted:
		case p.Proto == nil:
			if ap.Spec.GetAction() != securityapi.AuthorizationPolicy_ALLOW && ap.Spec.GetAction() != securityapi.AuthorizationPolicy_DENY {
				out.Add(analysis.ActionNotAtZtunnel, r, "spec.action", ap.Spec.GetAction(), hint)
			}
		case ap.Spec.GetAction() == securityapi.AuthorizationPolicy_DENY:
			effect := "its rules are enforced without it, so that more is denied than was written"
			if len(p.Proto.GetRules()) == 0 {
				effect = "nothing else is left of its rules, so that it denies nothing"
			}
			out.Add(analysis.L7DenyAtZtunnel, r, l7Field(ap), attributes(p), effect, hint)
		default:
			out.Add(analysis.L7AllowAtZtunnel, r, l7Field(ap), attributes(p), hint)
		}
	}
	return out
}

// enforced tells whether ztunnel enforces a policy for some workload, and names a waypoint of one.
func enforced(s *analysis.Snapshot, ap *securityv1.AuthorizationPolicy) (there bool, waypoint string) {
	selected := s.Select(scope(s, ap.Namespace), ap.Spec.GetSelector().GetMatchLabels())
	for _, w := range selected {
		if !s.InAmbient(w) {
			continue
		}
		there = true
		if through := s.Through(w); len(through) > 0 {
			return true, through[0].Key()
		}
	}
	if there || len(selected) > 0 || s.Live {
		return there, ""
	}
	// Files may have no workloads at all.
	return s.AmbientNamespace(ap.Namespace), ""
}

// attributes are those that layer 4 does not know.
func attributes(p *ambient.Policy) string {
	_, rest, _ := strings.Cut(p.Status.Message, "(found: ")
	found, _, _ := strings.Cut(rest, ")")
	return found
}

// l7Field is the first that is about HTTP.
func l7Field(ap *securityv1.AuthorizationPolicy) string {
	for i, rule := range ap.Spec.GetRules() {
		for j, to := range rule.GetTo() {
			op := to.GetOperation()
			for _, list := range []struct {
				name   string
				values []string
			}{
				{"hosts", op.GetHosts()},
				{"notHosts", op.GetNotHosts()},
				{"methods", op.GetMethods()},
				{"notMethods", op.GetNotMethods()},
				{"paths", op.GetPaths()},
				{"notPaths", op.GetNotPaths()},
			} {
				if len(list.values) > 0 {
					return at(at("spec.rules", i)+".to", j) + ".operation." + list.name
				}
			}
		}
		for j, from := range rule.GetFrom() {
			if len(from.GetSource().GetRequestPrincipals()) > 0 {
				return at(at("spec.rules", i)+".from", j) + ".source.requestPrincipals"
			}
		}
		for j, when := range rule.GetWhen() {
			if strings.HasPrefix(when.GetKey(), "request.") {
				return at(at("spec.rules", i)+".when", j) + ".key"
			}
		}
	}
	return "spec.rules"
}

// compiled is a policy of ztunnel's.
type compiled struct {
	r      *analysis.Resource
	object *securityv1.AuthorizationPolicy
	policy *ambient.Policy
	rules  *authz.Policy
}

// identities asks ztunnel's own matcher about connections of waypoints.
func identities(s *analysis.Snapshot) (out analysis.Messages) {
	byNamespace := map[string][]compiled{}
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		p := ambient.AuthorizationPolicy(s.Ambient, ap)
		if p.Proto == nil {
			continue
		}
		if rules, err := authz.Compile(p.Proto); err == nil {
			byNamespace[ap.Namespace] = append(byNamespace[ap.Namespace], compiled{r, ap, p, rules})
		}
	}
	said := map[string]bool{}
	for _, w := range s.Workloads("") {
		if !s.InAmbient(w) {
			continue
		}
		var own []compiled
		namespaces := []string{w.Namespace, s.Ambient.RootNamespace}
		for _, ns := range slices.Compact(namespaces) {
			for _, c := range byNamespace[ns] {
				if analysis.Matches(c.policy.Selector, w.Labels) {
					own = append(own, c)
				}
			}
		}
		if len(own) == 0 {
			continue
		}
		for _, waypoint := range s.Through(w) {
			throughWith(s, &out, own, waypoint, said)
		}
	}
	return out
}

// throughWith reports the policies that treat a waypoint otherwise than the callers they name.
func throughWith(s *analysis.Snapshot, out *analysis.Messages, own []compiled, w *ambient.Waypoint, said map[string]bool) {
	id := spiffe.ID{TrustDomain: s.Ambient.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
	var allow []*authz.Policy
	for _, c := range own {
		if c.object.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW {
			allow = append(allow, c.rules)
		}
	}
	refused := len(allow) > 0 && !anyPort(own, id, allow)
	for _, c := range own {
		key := c.r.FullName() + " " + w.Key()
		if said[key] || !namesCallers(&c.object.Spec) {
			continue
		}
		switch c.object.Spec.GetAction() {
		case securityapi.AuthorizationPolicy_ALLOW:
			if refused {
				said[key] = true
				out.Add(analysis.AllowWithoutWaypoint, c.r, "spec.rules", w.Key(), id.Principal())
			}
		case securityapi.AuthorizationPolicy_DENY:
			// Alone it allows whatever it does not deny.
			if anyPort(own, id, []*authz.Policy{c.rules}) {
				said[key] = true
				out.Add(analysis.DenyBypassedByWaypoint, c.r, "spec.rules", w.Key(), id.Principal())
			}
		}
	}
}

// anyPort tells whether an identity gets through policies to some port: one that rules name, or another.
func anyPort(own []compiled, id spiffe.ID, policies []*authz.Policy) bool {
	ports := map[uint16]bool{1: true}
	for _, c := range own {
		for _, rule := range c.policy.Proto.GetRules() {
			for _, clause := range rule.GetClauses() {
				for _, m := range clause.GetMatches() {
					for _, p := range m.GetDestinationPorts() {
						ports[uint16(p)] = true
					}
				}
			}
		}
	}
	set := authz.Select(nil, nil, policies)
	anywhere := netip.MustParseAddr("192.0.2.1")
	for port := range ports {
		conn := authz.Conn{Source: netip.AddrPortFrom(anywhere, 1), Destination: netip.AddrPortFrom(anywhere, port), Identity: id}
		if set.Check(conn).Allowed {
			return true
		}
	}
	return false
}

// namesCallers tells whether rules are about who calls.
func namesCallers(ap *securityapi.AuthorizationPolicy) bool {
	return slices.ContainsFunc(ap.GetRules(), func(rule *securityapi.Rule) bool {
		from := slices.ContainsFunc(rule.GetFrom(), func(f *securityapi.Rule_From) bool {
			src := f.GetSource()
			return len(src.GetPrincipals())+len(src.GetNamespaces())+len(src.GetServiceAccounts()) > 0
		})
		return from || slices.ContainsFunc(rule.GetWhen(), func(c *securityapi.Condition) bool {
			return (c.GetKey() == "source.principal" || c.GetKey() == "source.namespace") && len(c.GetValues()) > 0
		})
	})
}
