package policy

import (
	"fmt"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// translator turns one policy's rules into RBAC.
type translator struct {
	// trustDomains are all names of the mesh's own.
	trustDomains []string
	namespace    string // the policy's
	proxy        Proxy
	tcp          bool
	// allow leaves out a rule that cannot be expressed; otherwise its other parts are enforced.
	allow bool
	// custom rules are asked about before tokens are looked at.
	custom bool
	// problem is told of each part that cannot be expressed. It may be nil.
	problem func(attribute, value string, err error)
}

func (in Input) translator(p *securityv1.AuthorizationPolicy, a action, tcp bool) translator {
	return translator{
		trustDomains: trustDomains(in.Mesh), namespace: p.Namespace, proxy: in.Proxy, tcp: tcp,
		allow: a.envoy == rbacv3.RBAC_ALLOW, custom: a.api == securityapi.AuthorizationPolicy_CUSTOM,
	}
}

// clause is one attribute of a rule, with its values.
type clause struct {
	key     string
	yes, no []string
}

func (c clause) empty() bool { return len(c.yes) == 0 && len(c.no) == 0 }

// rule returns nil for a rule that is left out.
func (t translator) rule(rule *securityapi.Rule) *rbacv3.Policy {
	if rule == nil {
		return nil
	}
	var operations, sources []clause
	for _, when := range rule.GetWhen() {
		c := clause{when.GetKey(), when.GetValues(), when.GetNotValues()}
		switch {
		case isSource(c.key):
			sources = append(sources, c)
		default: // what is not known is refused as an operation
			operations = append(operations, c)
		}
	}
	out := &rbacv3.Policy{}
	for _, to := range alternatives(rule.GetTo(), operationClauses) {
		p, ok := t.permission(append(to, operations...))
		if !ok {
			return nil
		}
		out.Permissions = append(out.Permissions, p)
	}
	for _, from := range alternatives(rule.GetFrom(), sourceClauses) {
		p, ok := t.principal(append(from, sources...))
		if !ok {
			return nil
		}
		out.Principals = append(out.Principals, p)
	}
	return out
}

// alternatives of a rule's part; a part that is not there is one alternative without clauses.
func alternatives[T any](parts []T, clauses func(T) []clause) [][]clause {
	if len(parts) == 0 {
		return [][]clause{nil}
	}
	out := make([][]clause, 0, len(parts))
	for _, p := range parts {
		out = append(out, slices.DeleteFunc(clauses(p), clause.empty))
	}
	return out
}

func operationClauses(to *securityapi.Rule_To) []clause {
	o := to.GetOperation()
	return []clause{
		{"hosts", o.GetHosts(), o.GetNotHosts()},
		{"methods", o.GetMethods(), o.GetNotMethods()},
		{"paths", o.GetPaths(), o.GetNotPaths()},
		{"destination.port", o.GetPorts(), o.GetNotPorts()},
	}
}

func sourceClauses(from *securityapi.Rule_From) []clause {
	s := from.GetSource()
	return []clause{
		{"source.principal", s.GetPrincipals(), s.GetNotPrincipals()},
		{"request.auth.principal", s.GetRequestPrincipals(), s.GetNotRequestPrincipals()},
		{"source.serviceAccount", s.GetServiceAccounts(), s.GetNotServiceAccounts()},
		{"source.namespace", s.GetNamespaces(), s.GetNotNamespaces()},
		{"source.trustDomain", s.GetTrustDomains(), s.GetNotTrustDomains()},
		{"remote.ip", s.GetRemoteIpBlocks(), s.GetNotRemoteIpBlocks()},
		{"source.ip", s.GetIpBlocks(), s.GetNotIpBlocks()},
	}
}

// permission is the conjunction of the clauses; ok is false when the rule is to be left out.
func (t translator) permission(clauses []clause) (out *rbacv3.Permission, ok bool) {
	var all []*rbacv3.Permission
	for _, c := range clauses {
		if yes, usable := translate(t, c.key, c.yes, t.operation); !usable {
			return nil, false
		} else if len(yes) > 0 {
			all = append(all, orPermissions(yes))
		}
		if no, usable := translate(t, c.key, c.no, t.operation); !usable {
			return nil, false
		} else if len(no) > 0 {
			all = append(all, notPermission(orPermissions(no)))
		}
	}
	return andPermissions(all), true
}

// principal is the conjunction of the clauses; ok is false when the rule is to be left out.
func (t translator) principal(clauses []clause) (out *rbacv3.Principal, ok bool) {
	var all []*rbacv3.Principal
	for _, c := range clauses {
		if yes, usable := translate(t, c.key, c.yes, t.source); !usable {
			return nil, false
		} else if len(yes) > 0 {
			all = append(all, orPrincipals(yes))
		}
		if no, usable := translate(t, c.key, c.no, t.source); !usable {
			return nil, false
		} else if len(no) > 0 {
			all = append(all, notPrincipal(orPrincipals(no)))
		}
	}
	return andPrincipals(all), true
}

// translate turns an attribute's values into alternatives. When one of them cannot be expressed there is no usable result for an
// ALLOW rule, and for others none at all: the attribute then constrains nothing, so that the rule matches more.
func translate[T any](t translator, key string, values []string, one func(key, value string) (T, error)) (out []T, usable bool) {
	for _, v := range values {
		p, err := one(key, v)
		if t.custom && strings.HasPrefix(key, "request.auth.") {
			err = fmt.Errorf("%s is not known yet when the provider of a CUSTOM policy is asked", key)
		}
		if err != nil {
			if t.problem != nil {
				t.problem(key, v, err)
			}
			return nil, !t.allow
		}
		out = append(out, p)
	}
	return out, true
}

func errHTTPOnly(key string) error { return fmt.Errorf("%s is known of HTTP requests only", key) }
