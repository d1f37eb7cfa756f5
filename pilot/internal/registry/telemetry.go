package registry

import (
	"slices"
	"strings"

	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// telling is the mesh with what a target's filter chains tell. namespaces are those where objects about it may be, besides its own.
func (r *Registry) telling(f coll.Fetch, t policy.Target, namespaces ...string) envoy.Mesh {
	mesh := r.envoyMesh(f)
	t.RootNamespace = mesh.RootNamespace
	in := policy.TelemetryInput{Mesh: mesh.Config, Target: t, Find: r.providers(f, proxyOf(t))}
	namespaces = append(slices.Clone(namespaces), t.Namespace, mesh.RootNamespace)
	slices.Sort(namespaces)
	for _, ns := range slices.Compact(namespaces) {
		in.Objects = append(in.Objects, coll.FetchIndex(f, r.routing.byNamespace.telemetries, ns)...)
	}
	told := policy.NewTelemetry(in)
	mesh.Telemetry = &told
	return mesh
}

// collectorDestinations are the services of the providers that anybody names.
func (r *Registry) collectorDestinations(options ...coll.Option) coll.Collection[destination] {
	return coll.FlatMap("destinations/collectors", r.proxies.active, destination.key, func(f coll.Fetch, p proxy) []destination {
		if p.kind != waypointScope && p.kind != routerScope {
			return nil
		}
		mesh := r.envoyMesh(f).Config
		var out []destination
		find := r.providers(f, p.client())
		for _, to := range policy.Collectors(mesh, coll.FetchAll(f, r.routing.telemetries)) {
			b, err := find(to.Service, to.Port)
			if err != nil {
				continue
			}
			d := destination{proxy: p, host: b.Host, port: to.Port}
			if !slices.ContainsFunc(out, func(have destination) bool { return have.key() == d.key() }) {
				out = append(out, d)
			}
		}
		return out
	}, options...)
}

func (r *Registry) telemetryStatuses() coll.Collection[Status] {
	return statusOf("telemetries", r.routing.telemetries, func(f coll.Fetch, o *telemetryv1.Telemetry) (Status, bool) {
		condition := newCondition(o, gateway.ConditionAccepted, true, "Accepted", "")
		mesh := r.meshConfig(f)
		if problems := policy.TelemetryProblems(mesh, o, r.providers(f, client{namespace: o.Namespace})); len(problems) > 0 {
			condition = newCondition(o, gateway.ConditionAccepted, false, reasonUnsupported, strings.Join(problems, "; "))
		}
		return fromConditions(groupTelemetry, "v1", "Telemetry", o, []metav1.Condition{condition})
	})
}
