package kube

import (
	"fmt"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

func (c *checker) selector(s *typeapi.WorkloadSelector) {
	for _, key := range sortedKeys(s.GetMatchLabels()) {
		if key == "" {
			c.bad("spec.selector.matchLabels", "a label name cannot be empty")
		}
		if strings.Contains(key, "*") || strings.Contains(s.GetMatchLabels()[key], "*") {
			c.bad("spec.selector.matchLabels."+key, "wildcards are not supported in selectors")
		}
	}
}

func (c *checker) targets(s *typeapi.WorkloadSelector, ref *typeapi.PolicyTargetReference, refs []*typeapi.PolicyTargetReference) {
	set := 0
	for _, present := range []bool{s != nil, ref != nil, len(refs) > 0} {
		if present {
			set++
		}
	}
	if set > 1 {
		c.bad("spec", "only one of selector, targetRef and targetRefs can be set")
	}
	if ref != nil {
		c.target("spec.targetRef", ref)
	}
	if len(refs) > 16 {
		c.bad("spec.targetRefs", "at most 16 are allowed")
	}
	for i, r := range refs {
		c.target(fmt.Sprintf("spec.targetRefs[%d]", i), r)
	}
}

func (c *checker) target(field string, ref *typeapi.PolicyTargetReference) {
	if ref.GetName() == "" {
		c.bad(field+".name", "a name is required")
	}
	if ref.GetNamespace() != "" && ref.GetNamespace() != c.namespace {
		c.bad(field+".namespace", "a policy can only refer to its own namespace")
	}
	switch id := ref.GetGroup() + "/" + ref.GetKind(); id {
	case "/Service", "core/Service", "networking.istio.io/ServiceEntry", "gateway.networking.k8s.io/Gateway", "gateway.networking.k8s.io/GatewayClass":
	default:
		c.bad(field+".kind", "%q cannot be a target: use Service, ServiceEntry, Gateway or GatewayClass with their groups", id)
	}
}

func (c *checker) authorizationPolicy(o *securityv1.AuthorizationPolicy) {
	spec := &o.Spec
	c.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	c.selector(spec.GetSelector())
	switch spec.GetAction() {
	case securityapi.AuthorizationPolicy_CUSTOM:
		if spec.GetProvider().GetName() == "" {
			c.bad("spec.provider.name", "required for action CUSTOM")
		}
	case securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_AUDIT:
		if spec.GetProvider() != nil {
			c.bad("spec.provider", "only allowed for action CUSTOM")
		}
	default:
		c.bad("spec.action", "%d is not an action: use ALLOW, DENY, AUDIT or CUSTOM", spec.GetAction())
	}
	if spec.GetAction() == securityapi.AuthorizationPolicy_DENY && len(spec.GetRules()) == 0 {
		c.warn("spec.rules", "a DENY policy without rules never denies anything")
	}
	for i, rule := range spec.GetRules() {
		c.rule(fmt.Sprintf("spec.rules[%d]", i), rule)
	}
}

func (c *checker) rule(field string, rule *securityapi.Rule) {
	if rule == nil {
		c.bad(field, "a rule cannot be empty: use {} for one that matches everything")
		return
	}
	for i, from := range rule.GetFrom() {
		f := fmt.Sprintf("%s.from[%d].source", field, i)
		if from.GetSource() == nil {
			c.bad(f, "a source is required")
			continue
		}
		c.source(f, from.GetSource())
	}
	for i, to := range rule.GetTo() {
		f := fmt.Sprintf("%s.to[%d].operation", field, i)
		if to.GetOperation() == nil {
			c.bad(f, "an operation is required")
			continue
		}
		c.operation(f, to.GetOperation())
	}
	for i, when := range rule.GetWhen() {
		c.condition(fmt.Sprintf("%s.when[%d]", field, i), when)
	}
}

func (c *checker) source(field string, s *securityapi.Source) {
	lists := []struct {
		name   string
		values []string
		check  func(field, value string)
	}{
		{"principals", s.Principals, c.notEmpty},
		{"notPrincipals", s.NotPrincipals, c.notEmpty},
		{"requestPrincipals", s.RequestPrincipals, c.notEmpty},
		{"notRequestPrincipals", s.NotRequestPrincipals, c.notEmpty},
		{"namespaces", s.Namespaces, c.notEmpty},
		{"notNamespaces", s.NotNamespaces, c.notEmpty},
		{"serviceAccounts", s.ServiceAccounts, c.serviceAccount},
		{"notServiceAccounts", s.NotServiceAccounts, c.serviceAccount},
		{"ipBlocks", s.IpBlocks, c.block},
		{"notIpBlocks", s.NotIpBlocks, c.block},
		{"remoteIpBlocks", s.RemoteIpBlocks, c.block},
		{"notRemoteIpBlocks", s.NotRemoteIpBlocks, c.block},
	}
	some := false
	for _, l := range lists {
		some = some || len(l.values) > 0
		for i, v := range l.values {
			l.check(fmt.Sprintf("%s.%s[%d]", field, l.name, i), v)
		}
	}
	if !some {
		c.bad(field, "a source without any field is not allowed")
	}
	accounts := len(s.ServiceAccounts)+len(s.NotServiceAccounts) > 0
	if accounts && len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) > 0 {
		c.bad(field+".serviceAccounts", "cannot be combined with principals or namespaces")
	}
}

func (c *checker) operation(field string, o *securityapi.Operation) {
	some := false
	for _, l := range []struct {
		name   string
		values []string
		check  func(field, value string)
	}{
		{"hosts", o.Hosts, c.notEmpty},
		{"notHosts", o.NotHosts, c.notEmpty},
		{"ports", o.Ports, c.portText},
		{"notPorts", o.NotPorts, c.portText},
		{"methods", o.Methods, c.notEmpty},
		{"notMethods", o.NotMethods, c.notEmpty},
		{"paths", o.Paths, c.notEmpty},
		{"notPaths", o.NotPaths, c.notEmpty},
	} {
		some = some || len(l.values) > 0
		for i, v := range l.values {
			l.check(fmt.Sprintf("%s.%s[%d]", field, l.name, i), v)
		}
	}
	if !some {
		c.bad(field, "an operation without any field is not allowed")
	}
}

func (c *checker) condition(field string, when *securityapi.Condition) {
	check := c.notEmpty
	switch key := when.GetKey(); {
	case key == "":
		c.bad(field+".key", "a key is required")
	case key == "source.ip", key == "remote.ip", key == "destination.ip":
		check = c.block
	case key == "destination.port":
		check = c.portText
	case key == "source.namespace", key == "source.principal", key == "source.serviceAccount", key == "connection.sni":
	case key == "request.auth.principal", key == "request.auth.audiences", key == "request.auth.presenter":
	case strings.HasPrefix(key, "request.headers["), strings.HasPrefix(key, "request.auth.claims["), strings.HasPrefix(key, "experimental.envoy.filters."):
		if !strings.HasSuffix(key, "]") {
			c.bad(field+".key", "%q lacks the closing bracket", key)
		}
	default:
		c.bad(field+".key", "%q is not an attribute that conditions know", key)
	}
	if len(when.GetValues())+len(when.GetNotValues()) == 0 {
		c.bad(field, "values or notValues is required")
	}
	for i, v := range when.GetValues() {
		check(fmt.Sprintf("%s.values[%d]", field, i), v)
	}
	for i, v := range when.GetNotValues() {
		check(fmt.Sprintf("%s.notValues[%d]", field, i), v)
	}
}

func (c *checker) notEmpty(field, value string) {
	if value == "" {
		c.bad(field, "an empty value is not allowed")
	}
}

// serviceAccount is "name" or "namespace/name".
func (c *checker) serviceAccount(field, value string) {
	namespace, name, both := strings.Cut(value, "/")
	if namespace == "" || both && name == "" || strings.Contains(name, "/") || strings.Contains(value, "*") {
		c.bad(field, "%q is not name or namespace/name", value)
	}
}

func (c *checker) portText(field, value string) {
	if n, err := strconv.ParseUint(value, 10, 16); err != nil || n == 0 {
		c.bad(field, "%q is not a port: use 1 to 65535", value)
	}
}

func (c *checker) peerAuthentication(o *securityv1.PeerAuthentication) {
	c.selector(o.Spec.GetSelector())
	if len(o.Spec.GetPortLevelMtls()) == 0 {
		return
	}
	if len(o.Spec.GetSelector().GetMatchLabels()) == 0 {
		c.bad("spec.portLevelMtls", "needs a selector: ports belong to workloads")
	}
	for port := range o.Spec.GetPortLevelMtls() {
		c.port(fmt.Sprintf("spec.portLevelMtls.%d", port), port)
	}
}
