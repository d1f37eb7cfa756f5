package registry

import (
	"strings"
	"testing"
)

func limitYAML(ns, name, target string) string {
	return "apiVersion: policy.isthmus.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: {targetRefs: [" + target + "], limits: [{requests: 5, per: Second}]}\n---\n"
}

const limitedRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{kind: Service, group: "", name: ratings}], rules: [{name: all, backendRefs: [{name: ratings, port: 9080}]}]}
---
`

// Policies reach the waypoints that they concern, and no others.
func TestRateLimitsReachTheirProxies(t *testing.T) {
	w := newWorld(t, bookshop())
	w.r.Scopes().Open(shopScope)
	w.r.Scopes().Open(otherScope)
	w.took()
	has := func(scope, name string) bool {
		return strings.Contains(w.has[scope]["lds main_internal"], "isthmus.ratelimit/"+name)
	}
	w.apply(limitYAML("shop", "reviews", "{kind: Service, name: reviews}"))
	w.expect(shopScope + " lds main_internal")
	if !has(shopScope, "shop/reviews") || has(otherScope, "shop/reviews") {
		t.Error("the policy is not where it belongs")
	}
	w.apply(limitYAML("other", "gateway", "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}"))
	w.expect(otherScope + " lds main_internal")
	w.apply(limitYAML("shop", "nobody", "{kind: Service, name: plain}"))
	w.expect()
	w.apply(limitYAML("shop", "route", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}"))
	w.expect() // there is no such route yet
	w.apply(limitedRoute)
	if !has(shopScope, "shop/route") {
		t.Error("the policy of a route is missing")
	}
	w.took()
	w.remove(limitYAML("shop", "route", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}"))
	w.expect(shopScope + " lds main_internal")
	if has(shopScope, "shop/route") {
		t.Error("a policy that is gone stays")
	}
}

func TestRateLimitStatuses(t *testing.T) {
	const gatewayAPI = "group: gateway.networking.k8s.io, "
	w := newWorld(t, bookshop(), limitedRoute,
		limitYAML("shop", "bound", "{kind: Service, name: reviews}, {"+gatewayAPI+"kind: HTTPRoute, name: r, sectionName: all}"),
		limitYAML("shop", "gateway", "{"+gatewayAPI+"kind: Gateway, name: wp}"),
		limitYAML("shop", "unbound", "{kind: Service, name: plain}"),
		limitYAML("shop", "missing", "{kind: Service, name: reviews}, {kind: Service, name: nowhere}"),
		limitYAML("shop", "rule", "{"+gatewayAPI+"kind: HTTPRoute, name: r, sectionName: other}"),
		limitYAML("shop", "route", "{"+gatewayAPI+"kind: GRPCRoute, name: r}"),
	)
	want := map[string][]string{
		"bound":   {`"status":"True"`, "enforced by shop/wp"},
		"gateway": {`"status":"True"`, "enforced by shop/wp"},
		"unbound": {`"status":"False"`, "AncestorNotBound", "spec.targetRefs[0]: Service shop/plain is served by no waypoint and no Gateway"},
		"missing": {`"status":"False"`, "TargetNotFound", "spec.targetRefs[1]: Service shop/nowhere was not found"},
		"rule":    {`"status":"False"`, "TargetNotFound", `has no rule named \"other\"`},
		"route":   {`"status":"False"`, "TargetNotFound", "spec.targetRefs[0]: GRPCRoute shop/r was not found"},
	}
	for _, s := range w.r.Statuses() {
		if s.Kind != "RateLimitPolicy" {
			continue
		}
		for _, part := range want[s.Name] {
			if !strings.Contains(string(s.Content), part) {
				t.Errorf("%s: %s, want %q", s.Name, s.Content, part)
			}
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("no status of %v", want)
	}
}
