package gateway

import (
	"slices"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// WaypointRoutes translates what routes say of one service port. Routes of the Gateway API come before any VirtualService; among
// VirtualServices the one that names the host most exactly counts, then the oldest; the others are named as problems.
func WaypointRoutes(v View, in WaypointInput) (*routev3.RouteConfiguration, []route.Problem) {
	t := in.translation(v)
	port := strconv.FormatUint(uint64(in.Port.Number), 10)
	host := route.VirtualHost{Name: "inbound|http|" + port, Domains: []string{"*"}}
	routes, found := t.serviceRoutes(in)
	if host.Routes = routes; found {
		for _, vs := range in.applicable() {
			t.problem(virtualServiceOrigin(vs), field.NewPath("spec", "hosts"), "routes of the Gateway API are attached to %s, and take the place of this", in.Service.Hostname)
		}
	} else {
		var own []route.Route
		concerned := false
		if vs := t.elect(in); vs != nil {
			own, concerned = t.httpRoutes(vs, []string{meshGateway})
			t.connectionsToRequests(in, vs)
		}
		if !concerned {
			own = []route.Route{t.defaultRoute(in)}
		}
		host.Routes = append(routes, own...)
	}
	config := route.Config{Name: WaypointRouteName(in.Service.Hostname, in.Port.Number), Hosts: []route.VirtualHost{host}}
	out, refused := config.Envoy()
	return out, append(t.problems, refused...)
}

func (in WaypointInput) translation(v View) *translation {
	return &translation{view: v, mesh: in.Mesh, cluster: in.ClusterName, namespace: in.Namespace, waypoint: true, port: in.Port.Number}
}

// connectionsToRequests names matches of connections to a port that has requests: they have no effect there.
func (t *translation) connectionsToRequests(in WaypointInput, vs *networkingv1.VirtualService) {
	if !in.Port.Protocol.IsHTTP() {
		return
	}
	note := func(at *field.Path, port uint32) {
		if port == in.Port.Number {
			t.problem(virtualServiceOrigin(vs), at.Child("port"), "port %d of %s has requests: http[] is for them, the match is left out", port, in.Service.Hostname)
		}
	}
	for i, r := range vs.Spec.Tcp {
		for j, m := range r.GetMatch() {
			note(field.NewPath("spec", "tcp").Index(i).Child("match").Index(j), m.GetPort())
		}
	}
	for i, r := range vs.Spec.Tls {
		for j, m := range r.GetMatch() {
			note(field.NewPath("spec", "tls").Index(i).Child("match").Index(j), m.GetPort())
		}
	}
}

// defaultRoute sends everything to the service itself.
func (t *translation) defaultRoute(in WaypointInput) route.Route {
	to := destinationTarget{host: in.Service.Hostname, port: in.Port.Number}
	return route.Route{
		Name:      "default",
		Decorator: route.Operation(in.Service.Hostname, strconv.FormatUint(uint64(in.Port.Number), 10), route.Path{}),
		Forward: &route.Forward{
			Targets: []route.Target{{Cluster: t.cluster(to.host, to.port, ""), Session: serviceSession(in.Service)}},
			Retry:   t.retry(route.Origin{}, field.NewPath("defaultHttpRetryPolicy"), nil),
			Hash:    addHash(nil, t.hash(to)),
		},
	}
}

// applicable are the VirtualServices that speak of the service to this waypoint, the one that counts first: those of the service's
// or the waypoint's namespace.
func (in WaypointInput) applicable() []*networkingv1.VirtualService {
	type candidate struct {
		vs   *networkingv1.VirtualService
		host string
	}
	var all []candidate
	for _, vs := range inOrder(in.VirtualServices, in.Mesh.DefaultExportTo, in.Namespace) {
		if !in.visible(vs) {
			continue
		}
		best := ""
		for _, host := range VirtualServiceHosts(in.Mesh, vs) {
			if hostMatches(host, in.Service.Hostname) && (best == "" || narrower(host, best)) {
				best = host
			}
		}
		if best != "" {
			all = append(all, candidate{vs, best})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		switch {
		case narrower(a.host, b.host):
			return -1
		case narrower(b.host, a.host):
			return 1
		}
		return 0
	})
	out := make([]*networkingv1.VirtualService, len(all))
	for i, c := range all {
		out[i] = c.vs
	}
	return out
}

func (in WaypointInput) visible(vs *networkingv1.VirtualService) bool {
	if vs.Namespace != in.Service.Namespace && vs.Namespace != in.Namespace {
		return false
	}
	if len(vs.Spec.Gateways) > 0 && !slices.Contains(vs.Spec.Gateways, meshGateway) {
		return false
	}
	return exported(vs.Spec.ExportTo, in.Mesh.DefaultExportTo, vs.Namespace, in.Namespace) ||
		vs.Namespace == in.Service.Namespace && exported(vs.Spec.ExportTo, in.Mesh.DefaultExportTo, vs.Namespace, in.Service.Namespace)
}

// elect gives the VirtualService that counts, and names the others.
func (t *translation) elect(in WaypointInput) *networkingv1.VirtualService {
	all := in.applicable()
	if len(all) == 0 {
		return nil
	}
	for _, other := range all[1:] {
		t.problem(virtualServiceOrigin(other), field.NewPath("spec", "hosts"),
			"%s/%s speaks of %s already, and counts", all[0].Namespace, all[0].Name, in.Service.Hostname)
	}
	return all[0]
}
