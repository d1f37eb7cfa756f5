package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// ruleYAML is a DestinationRule with one subset, which is named as it is itself.
func ruleYAML(namespace, name, host, more string) string {
	return `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ` + name + `, namespace: ` + namespace + `}
spec: {host: "` + host + `", subsets: [{name: ` + name + `}]` + more + `}
---
`
}

func TestWhichRuleCounts(t *testing.T) {
	const (
		full     = "shop.serving.svc.cluster.local"
		private  = `, exportTo: ["."]`
		forEdge  = `, workloadSelector: {matchLabels: {istio: edge}}`
		forOther = `, workloadSelector: {matchLabels: {istio: other}}`
	)
	rules := func(all ...string) []string { return all }
	for name, c := range map[string]struct {
		rules  []string
		client string // namespace
		want   string // subsets
	}{
		"none":                                     {rules(ruleYAML("elsewhere", "a", full, "")), "asking", ""},
		"the client's before the service's":        {rules(ruleYAML("asking", "a", "*.local", ""), ruleYAML("serving", "b", "shop", "")), "asking", "a"},
		"the service's before the root's":          {rules(ruleYAML("istio-system", "a", full, ""), ruleYAML("serving", "b", "*.local", "")), "asking", "b"},
		"the root's last":                          {rules(ruleYAML("istio-system", "a", full, "")), "asking", "a"},
		"the root's, for a gateway there":          {rules(ruleYAML("istio-system", "a", full, "")), "istio-system", "a"},
		"the service's, for a gateway in the root": {rules(ruleYAML("istio-system", "a", full, ""), ruleYAML("serving", "b", "*.local", "")), "istio-system", "b"},
		"what only the root sees comes first":      {rules(ruleYAML("istio-system", "a", full, private), ruleYAML("serving", "b", "shop", "")), "istio-system", "a"},
		"the full name before wildcards":           {rules(ruleYAML("serving", "a", "*.serving.svc.cluster.local", ""), ruleYAML("serving", "b", "shop", "")), "asking", "b"},
		"the longest wildcard":                     {rules(ruleYAML("serving", "a", "*.local", ""), ruleYAML("serving", "b", "*.svc.cluster.local", "")), "asking", "b"},
		"of one host, all subsets":                 {rules(ruleYAML("serving", "b", full, ""), ruleYAML("serving", "a", "shop", "")), "asking", "a b"},
		"private to the service's namespace":       {rules(ruleYAML("serving", "a", "shop", private)), "asking", ""},
		"its own see it":                           {rules(ruleYAML("serving", "a", "shop", private)), "serving", "a"},
		"exported to others, nobody else's counts": {rules(ruleYAML("serving", "a", "shop", `, exportTo: [others]`), ruleYAML("serving", "b", "*.local", "")), "asking", ""},
		"exported to others, the root's counts":    {rules(ruleYAML("serving", "a", "shop", `, exportTo: [others]`), ruleYAML("istio-system", "b", "*.local", "")), "asking", "b"},
		"exported to some is not merged with what everybody sees": {
			rules(ruleYAML("serving", "a", "shop", `, exportTo: [asking]`), ruleYAML("serving", "b", "shop", "")), "asking", "b",
		},
		"for some pods of the namespace":          {rules(ruleYAML("asking", "a", full, forEdge), ruleYAML("asking", "b", full, "")), "asking", "a"},
		"for other pods":                          {rules(ruleYAML("asking", "a", full, forOther), ruleYAML("asking", "b", full, "")), "asking", "b"},
		"for pods is not for other namespaces":    {rules(ruleYAML("serving", "a", full, forEdge)), "asking", ""},
		"for other pods hides those of elsewhere": {rules(ruleYAML("asking", "a", full, forOther), ruleYAML("serving", "b", full, "")), "asking", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.rules...)
			var got []string
			if rule := w.r.rule(coll.Fetch{}, full, ruleClient{c.client, map[string]string{"istio": "edge"}}, "serving"); rule != nil {
				for _, s := range rule.Spec.GetSubsets() {
					got = append(got, s.GetName())
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got the subsets %q, want %q", got, c.want)
			}
		})
	}
}

// Rules that select pods are for gateways, not for waypoints.
func TestWaypointsAreNotSelected(t *testing.T) {
	w := newWorld(t, ruleYAML("asking", "a", "x.example.com", `, workloadSelector: {}`))
	for scope, want := range map[string]bool{"router/asking/istio=edge": true, "waypoint/asking/wp": false, "grpc/asking": false} {
		by := (proxy{scope: parseScope(scope)}).ruleClient()
		if got := w.r.rule(coll.Fetch{}, "x.example.com", by, "") != nil; got != want {
			t.Errorf("%s: %v, want %v", scope, got, want)
		}
	}
}

// What a service is exported to is for gateways and gRPC clients.
func TestExportedServices(t *testing.T) {
	annotated := func(to string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: far, annotations: {networking.istio.io/exportTo: %q}}\n"+
			"spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}\n---\n", to)
	}
	for to, want := range map[string]string{
		"": "router grpc", "*": "router grpc", ".": "", "~": "", "near": "router grpc", "other , near": "router grpc", "other": "", "~,near": "",
	} {
		w := newWorld(t, annotated(to))
		var got []string
		for _, by := range []struct {
			name string
			kind scopeKind
		}{{"router", routerScope}, {"grpc", proxylessScope}} {
			if w.r.service(coll.Fetch{}, "s.far.svc.cluster.local", client{by.kind, "near"}) != nil {
				got = append(got, by.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: known to %q, want %q", to, got, want)
		}
		if w.r.service(coll.Fetch{}, "s.far.svc.cluster.local", client{waypointScope, "near"}) == nil {
			t.Errorf("%q: unknown to waypoints", to)
		}
	}
}
