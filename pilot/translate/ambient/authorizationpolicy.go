package ambient

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
)

// Policy is an AuthorizationPolicy as far as L4 can enforce it.
type Policy struct {
	Namespace, Name string
	// Proto is nil when nothing is sent.
	Proto *security.Authorization
	// Selector of the workloads that list it, when its scope is WORKLOAD_SELECTOR.
	Selector map[string]string
	Status   PolicyStatus
}

// PolicyStatus is the condition ZtunnelAccepted.
type PolicyStatus struct {
	Accepted bool
	Reason   string
	Message  string
}

// Reasons of the condition ZtunnelAccepted.
const (
	ReasonAccepted         = "Accepted"
	ReasonInvalid          = "Invalid"
	ReasonPartiallyInvalid = "PartiallyInvalid"
	ReasonUnsupportedValue = "UnsupportedValue"
	ReasonNotForZtunnel    = "NotForZtunnel"
)

// Key is namespace/name.
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

// Equal compares by content.
func (p *Policy) Equal(o *Policy) bool {
	return p.Key() == o.Key() && proto.Equal(p.Proto, o.Proto) && (p.Proto == nil) == (o.Proto == nil) && mapsEqual(p.Selector, o.Selector) && p.Status == o.Status
}

func (p *Policy) appliesTo(mesh Mesh, namespace string, labels map[string]string) bool {
	return p.Proto.GetScope() == security.Scope_WORKLOAD_SELECTOR &&
		(p.Namespace == namespace || p.Namespace == mesh.RootNamespace) && selects(p.Selector, labels)
}

// AuthorizationPolicy translates a policy. Its L7 parts are handled so that the outcome is never more permissive than what
// was written: an ALLOW rule with any is dropped, a DENY rule is enforced without them.
func AuthorizationPolicy(mesh Mesh, ap *securityv1.AuthorizationPolicy) *Policy {
	p := &Policy{Namespace: ap.Namespace, Name: ap.Name}
	spec := &ap.Spec
	if spec.GetTargetRef() != nil || len(spec.GetTargetRefs()) > 0 {
		p.Status = PolicyStatus{Reason: ReasonNotForZtunnel, Message: "policies with targetRefs are enforced by waypoints"}
		return p
	}
	out := &security.Authorization{Name: ap.Name, Namespace: ap.Namespace}
	switch spec.GetAction() {
	case securityapi.AuthorizationPolicy_ALLOW:
	case securityapi.AuthorizationPolicy_DENY:
		out.Action = security.Action_DENY
	default:
		p.Status = PolicyStatus{Reason: ReasonUnsupportedValue, Message: fmt.Sprintf("ztunnel does not support the %s action", spec.GetAction())}
		return p
	}
	if dry, err := strconv.ParseBool(ap.Annotations[annotationDryRun]); err == nil && dry {
		if !mesh.DryRun {
			p.Status = PolicyStatus{Reason: ReasonUnsupportedValue, Message: "dry-run policies are not enabled for ztunnel: see AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY"}
			return p
		}
		out.DryRun = true
	}
	switch p.Selector = spec.GetSelector().GetMatchLabels(); {
	case len(p.Selector) > 0:
		out.Scope = security.Scope_WORKLOAD_SELECTOR
	case ap.Namespace == mesh.RootNamespace:
		out.Scope = security.Scope_GLOBAL
	default:
		out.Scope = security.Scope_NAMESPACE
	}
	var l7 []string
	for _, rule := range spec.GetRules() {
		r := ruleTranslator{mesh: mesh, namespace: ap.Namespace, deny: out.Action == security.Action_DENY}
		if translated := r.rule(rule); translated != nil {
			out.Rules = append(out.Rules, translated)
		}
		l7 = append(l7, r.l7...)
	}
	p.Proto = out
	p.Status = policyStatus(out, len(spec.GetRules()), l7)
	return p
}

func policyStatus(out *security.Authorization, written int, l7 []string) PolicyStatus {
	if len(l7) == 0 {
		return PolicyStatus{Accepted: true, Reason: ReasonAccepted, Message: "attached to ztunnel"}
	}
	slices.Sort(l7)
	l7 = slices.Compact(l7)
	effect := "rules with them are not enforced, so that less is allowed than was written"
	if out.Action == security.Action_DENY {
		effect = "rules are enforced without them, so that more may be denied than was written, and a rule with nothing else has no effect"
	}
	status := PolicyStatus{Reason: ReasonPartiallyInvalid, Message: fmt.Sprintf("ztunnel does not support HTTP attributes (found: %s): %s", strings.Join(l7, ", "), effect)}
	if len(out.Rules) == 0 && written > 0 {
		status.Reason = ReasonInvalid
	}
	return status
}

// ruleTranslator translates one rule.
type ruleTranslator struct {
	mesh      Mesh
	namespace string
	deny      bool
	l7        []string // attributes that L4 does not know
}

// clause is one of a rule's conditions: the alternatives that L4 can express, and whether one of them lost all it had.
type clause struct {
	matches []*security.Match
	emptied bool
}

// rule returns nil for a rule that has no effect.
func (r *ruleTranslator) rule(rule *securityapi.Rule) *security.Rule {
	var clauses []clause
	if len(rule.GetTo()) > 0 {
		var c clause
		for _, to := range rule.GetTo() {
			c.add(r.operation(to.GetOperation()))
		}
		clauses = append(clauses, c)
	}
	if len(rule.GetFrom()) > 0 {
		var c clause
		for _, from := range rule.GetFrom() {
			c.add(r.source(from.GetSource()))
		}
		clauses = append(clauses, c)
	}
	for _, when := range rule.GetWhen() {
		var c clause
		c.add(r.condition(when))
		clauses = append(clauses, c)
	}
	if len(r.l7) > 0 && !r.deny {
		return nil
	}
	return assemble(clauses)
}

func (c *clause) add(m *security.Match) {
	if proto.Size(m) == 0 {
		c.emptied = true
		return
	}
	c.matches = append(c.matches, m)
}

// assemble leaves out clauses of which an alternative is unconstrained at L4. When nothing would remain, the alternatives that
// can be expressed are kept rather than denying everything; when there are none of those either, the rule has no effect.
func assemble(clauses []clause) *security.Rule {
	out := &security.Rule{}
	for _, c := range clauses {
		if !c.emptied {
			out.Clauses = append(out.Clauses, &security.Clause{Matches: c.matches})
		}
	}
	if len(out.Clauses) > 0 || len(clauses) == 0 {
		return out
	}
	for _, c := range clauses {
		if len(c.matches) > 0 {
			out.Clauses = append(out.Clauses, &security.Clause{Matches: c.matches})
		}
	}
	if len(out.Clauses) == 0 {
		return nil
	}
	return out
}

func (r *ruleTranslator) foreign(name string, values ...[]string) {
	for _, v := range values {
		if len(v) > 0 {
			r.l7 = append(r.l7, name)
			return
		}
	}
}

func (r *ruleTranslator) operation(o *securityapi.Operation) *security.Match {
	r.foreign("hosts", o.GetHosts())
	r.foreign("notHosts", o.GetNotHosts())
	r.foreign("methods", o.GetMethods())
	r.foreign("notMethods", o.GetNotMethods())
	r.foreign("paths", o.GetPaths())
	r.foreign("notPaths", o.GetNotPaths())
	return &security.Match{DestinationPorts: ports(o.GetPorts()), NotDestinationPorts: ports(o.GetNotPorts())}
}

func (r *ruleTranslator) source(s *securityapi.Source) *security.Match {
	r.foreign("remoteIpBlocks", s.GetRemoteIpBlocks())
	r.foreign("notRemoteIpBlocks", s.GetNotRemoteIpBlocks())
	r.foreign("requestPrincipals", s.GetRequestPrincipals())
	r.foreign("notRequestPrincipals", s.GetNotRequestPrincipals())
	return &security.Match{
		Namespaces:         stringMatches(s.GetNamespaces()),
		NotNamespaces:      stringMatches(s.GetNotNamespaces()),
		Principals:         r.principals(s.GetPrincipals()),
		NotPrincipals:      r.principals(s.GetNotPrincipals()),
		SourceIps:          blocks(s.GetIpBlocks()),
		NotSourceIps:       blocks(s.GetNotIpBlocks()),
		ServiceAccounts:    r.serviceAccounts(s.GetServiceAccounts()),
		NotServiceAccounts: r.serviceAccounts(s.GetNotServiceAccounts()),
	}
}

func (r *ruleTranslator) condition(c *securityapi.Condition) *security.Match {
	yes, no := c.GetValues(), c.GetNotValues()
	switch c.GetKey() {
	case "source.ip":
		return &security.Match{SourceIps: blocks(yes), NotSourceIps: blocks(no)}
	case "source.namespace":
		return &security.Match{Namespaces: stringMatches(yes), NotNamespaces: stringMatches(no)}
	case "source.principal":
		return &security.Match{Principals: r.principals(yes), NotPrincipals: r.principals(no)}
	case "source.serviceAccount":
		return &security.Match{ServiceAccounts: r.serviceAccounts(yes), NotServiceAccounts: r.serviceAccounts(no)}
	case "destination.ip":
		return &security.Match{DestinationIps: blocks(yes), NotDestinationIps: blocks(no)}
	case "destination.port":
		return &security.Match{DestinationPorts: ports(yes), NotDestinationPorts: ports(no)}
	}
	r.l7 = append(r.l7, c.GetKey())
	return &security.Match{}
}

// principals expands the trust domain into all its names.
func (r *ruleTranslator) principals(values []string) []*security.StringMatch {
	names := append([]string{r.mesh.TrustDomain}, r.mesh.TrustDomainAliases...)
	var expanded []string
	for _, v := range values {
		domain, rest, ok := strings.Cut(v, "/")
		if !ok || !slices.Contains(names, domain) && domain != defaultTrustDoman {
			expanded = append(expanded, v)
			continue
		}
		for _, name := range names {
			expanded = append(expanded, name+"/"+rest)
		}
	}
	return stringMatches(expanded)
}

func (r *ruleTranslator) serviceAccounts(values []string) []*security.ServiceAccountMatch {
	var out []*security.ServiceAccountMatch
	for _, v := range values {
		namespace, name, ok := strings.Cut(v, "/")
		if !ok {
			namespace, name = r.namespace, v
		}
		out = append(out, &security.ServiceAccountMatch{Namespace: namespace, ServiceAccount: name})
	}
	return out
}

// stringMatches reads the four forms of a value, without repetitions.
func stringMatches(values []string) []*security.StringMatch {
	var out []*security.StringMatch
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			continue
		}
		m := &security.StringMatch{}
		switch {
		case v == "*":
			m.MatchType = &security.StringMatch_Presence{Presence: &emptypb.Empty{}}
		case strings.HasPrefix(v, "*"):
			m.MatchType = &security.StringMatch_Suffix{Suffix: v[1:]}
		case strings.HasSuffix(v, "*"):
			m.MatchType = &security.StringMatch_Prefix{Prefix: v[:len(v)-1]}
		default:
			m.MatchType = &security.StringMatch_Exact{Exact: v}
		}
		out = append(out, m)
	}
	return out
}

// blocks reads addresses and CIDR blocks; validation has refused others.
func blocks(values []string) []*security.Address {
	var out []*security.Address
	for _, v := range values {
		prefix, err := netip.ParsePrefix(v)
		if err != nil {
			ip, err := netip.ParseAddr(v)
			if err != nil {
				continue
			}
			prefix = netip.PrefixFrom(ip, ip.BitLen())
		}
		out = append(out, &security.Address{Address: prefix.Masked().Addr().AsSlice(), Length: uint32(prefix.Bits())})
	}
	return out
}

func ports(values []string) []uint32 {
	var out []uint32
	for _, v := range values {
		if n, err := strconv.ParseUint(v, 10, 16); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out
}
