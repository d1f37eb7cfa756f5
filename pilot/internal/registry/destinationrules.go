package registry

import (
	"maps"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// ruleClient is a proxy as far as DestinationRules tell proxies apart: by the namespace and, of gateways, the labels of its pods. Rules
// that select pods are not for waypoints, which serve what is asked for by others, nor for gRPC clients, of which nobody knows the labels.
type ruleClient struct {
	namespace string
	labels    map[string]string // nil is of nobody whom rules select
}

func (p proxy) ruleClient() ruleClient {
	if p.kind != routerScope {
		return ruleClient{namespace: p.namespace}
	}
	return ruleClient{p.namespace, p.ownLabels()}
}

// rule finds the DestinationRule for a host, as Istio does: in the client's namespace, then the service's, then the root one. In each
// the rules for the most specific host count, whether or not the client may see them, and others are not looked at.
//
// To gateways in the root namespace the rules there come last, as they are meant for all of the mesh, unless nobody else sees them.
func (r *Registry) rule(f coll.Fetch, host string, client ruleClient, service string) *networkingv1.DestinationRule {
	mesh := r.envoyMesh(f)
	keys := hostKeys(host, mesh.Domain)
	find := func(namespace string, counts func(*networkingv1.DestinationRule) bool) []*networkingv1.DestinationRule {
		for i, key := range keys {
			found := coll.FetchIndex(f, r.routing.byHost.rules, namespace+"\x00"+key)
			if i == 0 && len(keys) > 1 && !strings.HasPrefix(keys[1], "*") {
				// The full and the short name are the same host.
				found = append(found, coll.FetchIndex(f, r.routing.byHost.rules, namespace+"\x00"+keys[1])...)
			}
			if found = slices.DeleteFunc(found, func(dr *networkingv1.DestinationRule) bool { return !counts(dr) }); len(found) > 0 {
				return found
			}
		}
		return nil
	}
	private := privateRule(slices.Contains(mesh.Config.GetDefaultDestinationRuleExportTo(), "."))
	own := func(dr *networkingv1.DestinationRule) bool { return private(dr) || exportedTo(dr, client.namespace) }
	if client.namespace == mesh.RootNamespace {
		own = private
	}
	if found := find(client.namespace, own); found != nil {
		return client.choose(mergeRules(found))
	}
	for _, namespace := range []string{service, mesh.RootNamespace} {
		if namespace == "" {
			continue
		}
		found := find(namespace, func(dr *networkingv1.DestinationRule) bool { return !private(dr) })
		if chosen := client.choose(slices.DeleteFunc(mergeRules(found), func(dr *networkingv1.DestinationRule) bool { return !exportedTo(dr, client.namespace) })); chosen != nil {
			return chosen
		}
	}
	return nil
}

// privateRule tells rules that nobody beyond their own namespace sees: that is what they say, or the default, or they select pods.
func privateRule(byDefault bool) func(*networkingv1.DestinationRule) bool {
	return func(dr *networkingv1.DestinationRule) bool {
		to := dr.Spec.GetExportTo()
		switch {
		case dr.Spec.GetWorkloadSelector() != nil:
			return true
		case len(to) == 0:
			return byDefault
		}
		return !slices.ContainsFunc(to, func(ns string) bool { return ns != "." && ns != dr.Namespace })
	}
}

// exportedTo is for rules that are not private.
func exportedTo(dr *networkingv1.DestinationRule, namespace string) bool {
	to := dr.Spec.GetExportTo()
	return len(to) == 0 || slices.Contains(to, "*") || slices.Contains(to, namespace) || dr.Namespace == namespace && slices.Contains(to, ".")
}

// mergeRules puts together the rules for a host that are for the same namespaces and the same pods: the traffic policy is that of the
// oldest that has one, subsets are those of all. Those that select pods come first.
func mergeRules(rules []*networkingv1.DestinationRule) []*networkingv1.DestinationRule {
	slices.SortFunc(rules, func(a, b *networkingv1.DestinationRule) int {
		if by := falseFirst(a.Spec.GetWorkloadSelector() == nil, b.Spec.GetWorkloadSelector() == nil); by != 0 {
			return by
		}
		return gateway.OlderClassic(&a.ObjectMeta, &b.ObjectMeta)
	})
	var out []*networkingv1.DestinationRule
	for _, dr := range rules {
		merged := false
		for i, have := range out {
			if sameSelection(have, dr) && comprises(dr.Spec.GetExportTo(), have.Spec.GetExportTo()) {
				out[i], merged = mergeRule(have, dr), true
			}
		}
		if !merged {
			out = append(out, dr)
		}
	}
	return out
}

func sameSelection(a, b *networkingv1.DestinationRule) bool {
	x, y := a.Spec.GetWorkloadSelector(), b.Spec.GetWorkloadSelector()
	return (x == nil) == (y == nil) && maps.Equal(x.GetMatchLabels(), y.GetMatchLabels())
}

// comprises is whether a rule for some namespaces is also for all of another's. To say none is to say nothing of the others.
func comprises(namespaces, others []string) bool {
	if len(others) == 0 {
		return len(namespaces) == 0
	}
	return !slices.ContainsFunc(others, func(ns string) bool { return !slices.Contains(namespaces, ns) })
}

func mergeRule(older, newer *networkingv1.DestinationRule) *networkingv1.DestinationRule {
	merged := &networkingv1.DestinationRule{TypeMeta: older.TypeMeta, ObjectMeta: older.ObjectMeta}
	merged.Spec.Host, merged.Spec.TrafficPolicy, merged.Spec.ExportTo = older.Spec.Host, older.Spec.TrafficPolicy, older.Spec.ExportTo
	merged.Spec.WorkloadSelector = older.Spec.WorkloadSelector
	if merged.Spec.TrafficPolicy == nil {
		merged.Spec.TrafficPolicy = newer.Spec.TrafficPolicy
	}
	merged.Spec.Subsets = slices.Clone(older.Spec.Subsets)
	for _, s := range newer.Spec.GetSubsets() {
		if !slices.ContainsFunc(merged.Spec.Subsets, func(have *networkingapi.Subset) bool { return have.GetName() == s.GetName() }) {
			merged.Spec.Subsets = append(merged.Spec.Subsets, s)
		}
	}
	return merged
}

// choose takes the first rule that selects the client, or else the last that is for all.
func (c ruleClient) choose(rules []*networkingv1.DestinationRule) *networkingv1.DestinationRule {
	var forAll *networkingv1.DestinationRule
	for _, dr := range rules {
		switch selector := dr.Spec.GetWorkloadSelector(); {
		case selector == nil:
			forAll = dr
		case c.labels != nil && hasLabels(c.labels, selector.GetMatchLabels()):
			return dr
		}
	}
	return forAll
}
