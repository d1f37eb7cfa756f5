package registry

import (
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// attachedPolicies are the AuthorizationPolicies of a target. namespaces are where they may be.
func (r *Registry) attachedPolicies(f coll.Fetch, t policy.Target, namespaces []string, targeted bool) []*securityv1.AuthorizationPolicy {
	authz := r.routing.byNamespace.authz
	if targeted {
		authz = r.routing.byNamespace.targetedAuthz
	}
	t.RootNamespace = r.envoyMesh(f).RootNamespace
	var all []*securityv1.AuthorizationPolicy
	for _, ns := range withRoot(namespaces, t.RootNamespace) {
		all = append(all, coll.FetchIndex(f, authz, ns)...)
	}
	return policy.Attached(t, all)
}

// withRoot are the namespaces and the root one, each once.
func withRoot(namespaces []string, root string) []string {
	out := append(slices.Clone(namespaces), root)
	slices.Sort(out)
	return slices.Compact(out)
}

// asked are the clusters of the authorizers that policies of a proxy name.
func (r *Registry) asked(f coll.Fetch, p proxy, t policy.Target, namespaces []string, targeted bool) []destination {
	u := &uses{proxy: p}
	find := r.providers(f, p.client())
	policy.CustomServices(r.envoyMesh(f).Config, r.attachedPolicies(f, t, namespaces, targeted), func(service string, port uint32) {
		if b, err := find(service, port); err == nil {
			u.cluster(b.Host, port, "")
		}
	})
	return u.list
}

// deriveAuthorizers collects what CUSTOM policies ask.
func (r *Registry) deriveAuthorizers() coll.Collection[destination] {
	p := &r.proxies
	same := coll.WithEqual(func(a, b destination) bool { return a.key() == b.key() })
	ports := coll.FlatMap("destinations/authorizers/ports", p.ports, destination.key, func(f coll.Fetch, s servedPort) []destination {
		if s.proxy.kind != waypointScope {
			return nil
		}
		target, namespaces := servedTarget(s)
		return r.asked(f, s.proxy, target, namespaces, true)
	}, same)
	all := coll.FlatMap("destinations/authorizers", p.active, destination.key, func(f coll.Fetch, p proxy) []destination {
		switch p.kind {
		case waypointScope:
			if len(coll.FetchIndex(f, r.routing.workloadsByBinding, p.namespace+"/"+p.gateway)) == 0 {
				return nil
			}
			return r.asked(f, p, workloadTarget(p), []string{p.namespace}, true)
		case routerScope:
			return r.asked(f, p, routerTarget(p), []string{p.namespace}, false)
		case proxylessScope, unsupported:
		}
		return nil
	}, same)
	return coll.Join("destinations/asked", ports, all)
}

// servedTarget is a port of a service at its waypoint, and where its policies may be.
func servedTarget(s servedPort) (policy.Target, []string) {
	kind := policy.KindService
	if s.service.Entry != "" {
		kind = policy.KindServiceEntry
	}
	return policy.Target{
		Proxy: policy.Waypoint, Namespace: s.proxy.namespace, Gateway: s.proxy.gateway,
		Services: []policy.ServiceRef{{Kind: kind, Namespace: s.service.Proto.Namespace, Name: s.service.Proto.Name}},
	}, []string{s.proxy.namespace, s.service.Proto.Namespace}
}

// workloadTarget is a waypoint for workloads, by their own addresses.
func workloadTarget(p proxy) policy.Target {
	return policy.Target{Proxy: policy.Waypoint, Namespace: p.namespace, Gateway: p.gateway}
}

func routerTarget(p proxy) policy.Target {
	return policy.Target{Proxy: policy.Gateway, Namespace: p.namespace, Gateway: p.gateway, Labels: p.labels}
}

// tellsClients is whether the Gateway of a waypoint wants applications to be told who their clients are.
func (r *Registry) tellsClients(f coll.Fetch, t policy.Target) bool {
	if t.Proxy != policy.Waypoint {
		return false
	}
	gw, ok := coll.FetchOne(f, r.gateways, t.Namespace+"/"+t.Gateway)
	return ok && gw.Annotations[policy.AnnotationForwardClient] == "true"
}
