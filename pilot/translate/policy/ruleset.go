package policy

import (
	"fmt"
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// Names of the filters. Istio's are those of the extensions.
const (
	httpRBACName    = "envoy.filters.http.rbac"
	networkRBACName = "envoy.filters.network.rbac"
)

const annotationDryRun = "istio.io/dry-run"

// action is one kind of AuthorizationPolicy and what Envoy does when its rules match.
type action struct {
	api    securityapi.AuthorizationPolicy_Action
	envoy  rbacv3.RBAC_Action
	shadow string // prefix of the statistics of dry-run policies
}

// actions that proxies take by themselves are in the order in which they are asked.
func actions() []action {
	return []action{
		{api: securityapi.AuthorizationPolicy_AUDIT, envoy: rbacv3.RBAC_LOG, shadow: "istio_dry_run_audit_"},
		{api: securityapi.AuthorizationPolicy_DENY, envoy: rbacv3.RBAC_DENY, shadow: "istio_dry_run_deny_"},
		{api: securityapi.AuthorizationPolicy_ALLOW, envoy: rbacv3.RBAC_ALLOW, shadow: "istio_dry_run_allow_"},
	}
}

// ruleSet is one filter: the enforced policies of an action, and those of a dry run. Each is nil when there is no such policy.
type ruleSet struct {
	enforced, shadow *rbacv3.RBAC
	shadowPrefix     string
}

// ruleSet returns nil when no policy has the action.
func (in Input) ruleSet(a action, tcp bool) *ruleSet {
	set := &ruleSet{}
	into := func(p *securityv1.AuthorizationPolicy) *rbacv3.RBAC {
		rules := &set.enforced
		if isDryRun(p) {
			rules, set.shadowPrefix = &set.shadow, a.shadow
		}
		if *rules == nil {
			*rules = &rbacv3.RBAC{Action: a.envoy, Policies: map[string]*rbacv3.Policy{}}
		}
		return *rules
	}
	found := false
	for _, p := range in.Policies {
		if p.Spec.GetAction() != a.api {
			continue
		}
		found = true
		addPolicy(into(p), in.translator(p, a, tcp), p)
	}
	if !found {
		return nil
	}
	return set
}

// addPolicy adds what p's rules say. Rules that cannot be expressed are missing from an ALLOW policy, which thereby allows less.
func addPolicy(out *rbacv3.RBAC, t translator, p *securityv1.AuthorizationPolicy) {
	for i, rule := range p.Spec.GetRules() {
		if translated := t.rule(rule); translated != nil {
			out.Policies[policyName(p, i)] = translated
		}
	}
	if len(p.Spec.GetRules()) == 0 {
		out.Policies[policyName(p, 0)] = matchNever()
	}
}

func policyName(p *securityv1.AuthorizationPolicy, rule int) string {
	return fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Namespace, p.Name, rule)
}

func isDryRun(p *securityv1.AuthorizationPolicy) bool {
	dry, err := strconv.ParseBool(p.Annotations[annotationDryRun])
	return err == nil && dry
}

func matchNever() *rbacv3.Policy {
	return &rbacv3.Policy{
		Permissions: []*rbacv3.Permission{notPermission(anyPermission())},
		Principals:  []*rbacv3.Principal{notPrincipal(anyPrincipal())},
	}
}

func (s *ruleSet) httpFilter() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: httpRBACName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(&httprbacv3.RBAC{
		Rules: s.enforced, ShadowRules: s.shadow, ShadowRulesStatPrefix: s.shadowPrefix,
	})}}
}

func (s *ruleSet) networkFilter() *listenerv3.Filter {
	return &listenerv3.Filter{Name: networkRBACName, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustAny(&networkrbacv3.RBAC{
		Rules: s.enforced, ShadowRules: s.shadow, StatPrefix: "tcp.", ShadowRulesStatPrefix: s.shadowPrefix,
	})}}
}

// mustAny packs a message that this package has built; equal messages give equal bytes.
func mustAny(m proto.Message) *anypb.Any {
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(fmt.Sprintf("pack %T: %v", m, err)) // strings come from objects that were decoded as UTF-8
	}
	return out
}
