package registry

import (
	"fmt"
	"slices"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// rateLimits are the RateLimitPolicies, and the ways to find them.
type rateLimits struct {
	policies    *coll.Static[*policyapi.RateLimitPolicy]
	byNamespace coll.Index[*policyapi.RateLimitPolicy, string]
	// ofRoutes has true for those that name a route, for which it has to be known what a chain serves.
	ofRoutes coll.Index[*policyapi.RateLimitPolicy, bool]
}

func (r *Registry) newRateLimits() {
	r.limits.policies = source[*policyapi.RateLimitPolicy](r, policyapi.Group, policyapi.KindRateLimitPolicy)
}

func (r *Registry) deriveRateLimits() {
	x := &r.limits
	x.byNamespace = coll.NewIndex(x.policies, func(o *policyapi.RateLimitPolicy) []string { return []string{o.Namespace} })
	x.ofRoutes = coll.NewIndex(x.policies, func(o *policyapi.RateLimitPolicy) []bool {
		if slices.ContainsFunc(o.Spec.TargetRefs, policy.IsRoute) {
			return []bool{true}
		}
		return nil
	})
}

// limitsOf are the filters of the RateLimitPolicies of a target. namespaces are where they may be, beside those of routes, which are
// only asked for when it matters.
func (r *Registry) limitsOf(f coll.Fetch, t policy.Target, namespaces []string, routes func() []policy.RouteRef) []*hcmv3.HttpFilter {
	t.RootNamespace = r.envoyMesh(f).RootNamespace
	var served []policy.RouteRef
	if routes != nil && len(coll.FetchIndex(f, r.limits.ofRoutes, true)) > 0 {
		served = routes()
	}
	var all []*policyapi.RateLimitPolicy
	for _, ns := range policy.RateLimitNamespaces(served, namespaces...) {
		all = append(all, coll.FetchIndex(f, r.limits.byNamespace, ns)...)
	}
	return policy.RateLimitFilters(t.Proxy, policy.AttachedRateLimits(t, served, all))
}

// routesOfPort are the routes of the Gateway API that a port of a waypoint serves.
func (r *Registry) routesOfPort(f coll.Fetch, s servedPort) func() []policy.RouteRef {
	return func() (out []policy.RouteRef) {
		for _, a := range coll.FetchIndex(f, r.routing.byHost.http, s.host()) {
			out = append(out, policy.RouteRef{Kind: "HTTPRoute", Namespace: a.route.Namespace, Name: a.route.Name})
		}
		for _, a := range coll.FetchIndex(f, r.routing.byHost.grpc, s.host()) {
			out = append(out, policy.RouteRef{Kind: "GRPCRoute", Namespace: a.route.Namespace, Name: a.route.Name})
		}
		return out
	}
}

// routesOfGateway are those that name a Gateway as their parent, or one of its ListenerSets.
func (r *Registry) routesOfGateway(f coll.Fetch, p proxy) func() []policy.RouteRef {
	return func() (out []policy.RouteRef) {
		if p.gw == nil {
			return nil
		}
		routes := r.servedRoutes(f, p.gw)
		for _, o := range routes.HTTP {
			out = append(out, policy.RouteRef{Kind: "HTTPRoute", Namespace: o.Namespace, Name: o.Name})
		}
		for _, o := range routes.GRPC {
			out = append(out, policy.RouteRef{Kind: "GRPCRoute", Namespace: o.Namespace, Name: o.Name})
		}
		return out
	}
}

func (r *Registry) rateLimitStatuses() coll.Collection[Status] {
	return statusOf("rateLimits", r.limits.policies, func(f coll.Fetch, o *policyapi.RateLimitPolicy) (Status, bool) {
		return fromConditions(policyapi.Group, policyapi.Version, policyapi.KindRateLimitPolicy, o, []metav1.Condition{r.rateLimitCondition(f, o)})
	})
}

// rateLimitCondition says whether all targets are there, and where they are served.
func (r *Registry) rateLimitCondition(f coll.Fetch, o *policyapi.RateLimitPolicy) metav1.Condition {
	var missing, unbound, bound []string
	for i, ref := range o.Spec.TargetRefs {
		name := fmt.Sprintf("spec.targetRefs[%d]: %s %s/%s", i, ref.Kind, o.Namespace, ref.Name)
		var problem, proxy string
		if policy.IsRoute(ref) {
			problem, proxy = r.findRoute(f, o.Namespace, ref)
		} else if exists, at := (finder{r, f}).Find(ref.Kind, o.Namespace, ref.Name); exists {
			proxy = at
		} else {
			problem = "was not found"
		}
		switch {
		case problem != "":
			missing = append(missing, name+" "+problem)
		case proxy == "":
			unbound = append(unbound, name+" is served by no waypoint and no Gateway")
		default:
			bound = append(bound, proxy)
		}
	}
	switch {
	case len(missing) > 0:
		return newCondition(o, gateway.ConditionAccepted, false, policy.ReasonTargetNotFound, strings.Join(append(missing, unbound...), "; "))
	case len(unbound) > 0:
		return newCondition(o, gateway.ConditionAccepted, false, policy.ReasonAncestorNotBound, strings.Join(unbound, "; "))
	}
	slices.Sort(bound)
	return newCondition(o, gateway.ConditionAccepted, true, policy.ReasonAccepted, "enforced by "+strings.Join(slices.Compact(bound), ", "))
}

// findRoute finds a route, the rule of it that is named, and a proxy that serves it.
func (r *Registry) findRoute(f coll.Fetch, namespace string, ref policyapi.TargetRef) (problem, proxy string) {
	key := namespace + "/" + ref.Name
	var parents []gatewayv1.ParentReference
	var rules []*gatewayv1.SectionName
	if ref.Kind == "GRPCRoute" {
		o, ok := coll.FetchOne(f, r.routing.grpcRoutes, key)
		if !ok {
			return "was not found", ""
		}
		parents = o.Spec.ParentRefs
		for _, rule := range o.Spec.Rules {
			rules = append(rules, rule.Name)
		}
	} else {
		o, ok := coll.FetchOne(f, r.routing.httpRoutes, key)
		if !ok {
			return "was not found", ""
		}
		parents = o.Spec.ParentRefs
		for _, rule := range o.Spec.Rules {
			rules = append(rules, rule.Name)
		}
	}
	named := func(n *gatewayv1.SectionName) bool { return n != nil && string(*n) == ref.SectionName }
	if ref.SectionName != "" && !slices.ContainsFunc(rules, named) {
		return fmt.Sprintf("has no rule named %q: see the names of spec.rules", ref.SectionName), ""
	}
	for _, ref := range parents {
		if gw := r.gatewayOfParent(f, ref, namespace); gw != nil {
			return "", objectKey(gw)
		}
	}
	for _, host := range gateway.ParentServices(r.view(f), r.routeMesh(f), parents, namespace) {
		if s := r.service(f, host, client{namespace: namespace}); s != nil {
			if keys := boundTo(s.Binding); len(keys) > 0 {
				return "", keys[0]
			}
		}
	}
	return "", ""
}
