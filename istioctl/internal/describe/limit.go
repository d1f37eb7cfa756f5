package describe

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// serviceLimits are the rate limits that a waypoint counts requests to a service by.
func (m *Mesh) serviceLimits(p *printer, s *corev1.Service, waypoint string, l7 bool) {
	namespace, name, _ := strings.Cut(waypoint, "/")
	var routes []policy.RouteRef
	for _, r := range m.routes {
		if slices.ContainsFunc(r.parents, func(ref gatewayv1.ParentReference) bool {
			ns, name, ok := r.parent(ref, "", "Service")
			return ok && ns == s.Namespace && name == s.Name
		}) {
			routes = append(routes, policy.RouteRef{Kind: r.kind, Namespace: r.namespace, Name: r.name})
		}
	}
	at := policy.Target{
		Proxy: policy.Waypoint, RootNamespace: m.control.Settings().RootNamespace, Namespace: namespace, Gateway: name,
		Services: []policy.ServiceRef{{Kind: policy.KindService, Namespace: s.Namespace, Name: s.Name}},
	}
	for _, one := range policy.AttachedRateLimits(at, routes, m.limits) {
		limits(p, one, s.Namespace)
		if !l7 {
			p.line(1, "WARNING: without a waypoint it has no effect: istioctl waypoint apply -n %s --enroll-namespace", s.Namespace)
		}
	}
}

// gatewayLimits are those that a gateway counts requests to some of its routes by.
func (m *Mesh) gatewayLimits(p *printer, g *gatewayv1.Gateway, its []route, near string) {
	var routes []policy.RouteRef
	for _, r := range its {
		routes = append(routes, policy.RouteRef{Kind: r.kind, Namespace: r.namespace, Name: r.name})
	}
	at := policy.Target{Proxy: policy.Gateway, RootNamespace: m.control.Settings().RootNamespace, Namespace: g.Namespace, Gateway: g.Name}
	for _, one := range policy.AttachedRateLimits(at, routes, m.limits) {
		limits(p, one, near)
	}
}

// limits describes a policy.
func limits(p *printer, one policy.RateLimit, near string) {
	of := ""
	if len(one.Routes) > 0 {
		var names []string
		for _, r := range one.Routes {
			names = append(names, r.Kind+" "+r.Name)
		}
		of = " of requests by " + strings.Join(names, ", ")
	}
	if one.Spec.Mode == policyapi.DryRun {
		of += " (dry run: it only counts and logs)"
	}
	p.line(0, "RateLimitPolicy: %s%s", displayed(one.Namespace, one.Name, near), of)
	for _, l := range one.Spec.Limits {
		text := fmt.Sprintf("%d requests a %s", l.Requests, strings.ToLower(string(l.Per)))
		if l.Burst > 0 {
			text += fmt.Sprintf(", %d at once", l.Burst)
		}
		if len(l.By) > 0 {
			text += " for each " + keys(l.By)
		}
		if len(l.FairShare) > 0 {
			text += ", divided among all by " + keys(l.FairShare)
		}
		p.line(1, "%s", text)
		for _, o := range l.Overrides {
			p.line(2, "%s: %d requests a %s", strings.Join(o.Values, ", "), o.Requests, strings.ToLower(string(o.Per)))
		}
	}
}

func keys(list []policyapi.Key) string {
	var out []string
	for _, k := range list {
		text := string(k.Type)
		if k.Name != "" {
			text += " " + k.Name
		}
		out = append(out, text)
	}
	return strings.Join(out, " and ")
}
