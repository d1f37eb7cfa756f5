package analyzers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// meshGateway stands for all proxies of the mesh itself.
const meshGateway = "mesh"

func virtualServiceAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "virtualservice.DestinationHostAnalyzer", Description: "Checks the destination hosts associated with each virtual service",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.DestinationPortRequired, analysis.IneffectivePolicy, analysis.IngressRouteRulesNotAffected},
			Run:   destinationHosts,
		},
		{
			Name: "virtualservice.DestinationRuleAnalyzer", Description: "Checks the destination rules associated with each virtual service",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound},
			Run:   destinationSubsets,
		},
		{
			Name: "virtualservice.GatewayAnalyzer", Description: "Checks the gateways associated with each virtual service",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.HostNotFoundInGateway, analysis.ReferencedInternalGateway},
			Run:   virtualServiceGateways,
		},
		{
			Name: "virtualservice.ConflictingMeshGatewayHostsAnalyzer", Description: "Checks if multiple virtual services associated with the mesh gateway have conflicting hosts",
			Codes: []analysis.Code{analysis.ConflictingMeshHosts},
			Run:   conflictingMeshHosts,
		},
		{
			Name: "virtualservice.JWTClaimRouteAnalyzer", Description: "Checks the VirtualService using JWT claim based routing has corresponding RequestAuthentication",
			Codes: []analysis.Code{analysis.JwtRoutingWithoutAuthentication},
			Run:   claimRoutes,
		},
		{
			Name: "virtualservice.RuleAnalyzer", Description: "Checks for rules and matches of virtual services that are never used",
			Codes: []analysis.Code{analysis.UnreachableRule, analysis.IneffectiveMatch},
			Run:   unusedRules,
		},
	}
}

// destination is one that a VirtualService names, and where.
type destination struct {
	*networkingapi.Destination
	field string
	// http is whether requests are routed to it; mirror is whether copies are.
	http, mirror bool
}

func destinations(vs *networkingapi.VirtualService) []destination {
	var out []destination
	for i, rule := range vs.GetHttp() {
		field := at("spec.http", i)
		for j, to := range rule.GetRoute() {
			out = append(out, destination{to.GetDestination(), at(field+".route", j) + ".destination", true, false})
		}
		if rule.GetMirror() != nil {
			out = append(out, destination{rule.GetMirror(), field + ".mirror", true, true})
		}
		for j, to := range rule.GetMirrors() {
			out = append(out, destination{to.GetDestination(), at(field+".mirrors", j) + ".destination", true, true})
		}
	}
	for i, rule := range vs.GetTls() {
		for j, to := range rule.GetRoute() {
			out = append(out, destination{to.GetDestination(), at(at("spec.tls", i)+".route", j) + ".destination", false, false})
		}
	}
	for i, rule := range vs.GetTcp() {
		for j, to := range rule.GetRoute() {
			out = append(out, destination{to.GetDestination(), at(at("spec.tcp", i)+".route", j) + ".destination", false, false})
		}
	}
	return slices.DeleteFunc(out, func(d destination) bool { return d.Destination == nil || d.GetHost() == "" })
}

func destinationHosts(s *analysis.Snapshot) (out analysis.Messages) {
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		for _, d := range destinations(&vs.Spec) {
			h := s.Host(d.GetHost(), vs.Namespace)
			if h == nil {
				code := "host"
				if d.mirror {
					code = "mirror host"
				}
				if s.Known("Service") && s.Known("ServiceEntry") {
					out.Add(analysis.ReferencedResourceNotFound, r, d.field+".host", code, d.GetHost())
				}
				continue
			}
			port := d.GetPort().GetNumber()
			switch {
			case port == 0 && len(h.Ports) > 1 && d.http:
				var numbers []uint32
				for _, p := range h.Ports {
					numbers = append(numbers, p.Number)
				}
				out.Add(analysis.DestinationPortRequired, r, d.field+".host", d.GetHost(), numbers)
			case port != 0 && len(h.Ports) > 0 && h.Port(port) == nil:
				out.Add(analysis.ReferencedResourceNotFound, r, d.field+".port.number", "host:port", fmt.Sprintf("%s:%d", d.GetHost(), port))
			}
		}
		delegates(s, &out, r, vs)
		ingressRules(s, &out, r, vs)
	}
	return out
}

// delegates looks for the VirtualServices that others delegate to, and says when one of them cannot be delegated to.
func delegates(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, vs *networkingv1.VirtualService) {
	for i, rule := range vs.Spec.GetHttp() {
		if rule.GetDelegate() == nil {
			continue
		}
		field, namespace := at("spec.http", i)+".delegate", cmp.Or(rule.GetDelegate().GetNamespace(), vs.Namespace)
		full := namespace + "/" + rule.GetDelegate().GetName()
		switch to, _, ok := analysis.Find[*networkingv1.VirtualService](s, namespace, rule.GetDelegate().GetName()); {
		case !ok:
			out.Add(analysis.ReferencedResourceNotFound, r, field+".name", "VirtualService", full)
		case len(to.Spec.GetHosts())+len(to.Spec.GetGateways()) > 0:
			out.Add(analysis.IneffectivePolicy, r, field, fmt.Sprintf("VirtualService %s has hosts or gateways of its own, and cannot be delegated to: the requests of the rule are refused", full))
		}
	}
}

// ingressRules reports rules for the mesh that a gateway does not apply, although it routes to their host: it has rules of its own for it.
func ingressRules(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, vs *networkingv1.VirtualService) {
	if len(vs.Spec.GetGateways()) == 0 || slices.Contains(vs.Spec.GetGateways(), meshGateway) {
		return
	}
	for _, d := range destinations(&vs.Spec) {
		if d.GetSubset() != "" || !d.http || d.mirror {
			continue
		}
		for _, other := range analysis.All[*networkingv1.VirtualService](s) {
			if len(other.Spec.GetGateways()) > 0 && !slices.Contains(other.Spec.GetGateways(), meshGateway) || !routesSubsets(&other.Spec) {
				continue
			}
			for _, host := range other.Spec.GetHosts() {
				if analysis.FullHost(host, other.Namespace) == analysis.FullHost(d.GetHost(), vs.Namespace) && analysis.VisibleTo(other.Spec.GetExportTo(), other.Namespace, vs.Namespace) {
					_, theirs, _ := analysis.Find[*networkingv1.VirtualService](s, other.Namespace, other.Name)
					if !throughWaypoint(s, d.GetHost(), vs.Namespace) {
						out.Add(analysis.IngressRouteRulesNotAffected, theirs, "spec.hosts", theirs.FullName(), r.FullName())
					}
				}
			}
		}
	}
}

func routesSubsets(vs *networkingapi.VirtualService) bool {
	return slices.ContainsFunc(destinations(vs), func(d destination) bool { return d.http && d.GetSubset() != "" })
}

// throughWaypoint tells whether what gateways send to a host passes its waypoint, which has the rules.
func throughWaypoint(s *analysis.Snapshot, host, namespace string) bool {
	h := s.Host(host, namespace)
	return h != nil && s.Binding(h).Ref != nil && ingressUsesWaypoint(s, h)
}

func ingressUsesWaypoint(s *analysis.Snapshot, h *analysis.Host) bool {
	const label = "istio.io/ingress-use-waypoint"
	if value, ok := h.Labels[label]; ok {
		return value == "true"
	}
	ns, _, ok := analysis.Find[*corev1.Namespace](s, "", h.Namespace)
	return ok && ns.Labels[label] == "true"
}

func destinationSubsets(s *analysis.Snapshot) (out analysis.Messages) {
	// Subsets, by whole host name and name; of each the namespaces that see it.
	type subset struct{ host, name string }
	known := map[subset][]*networkingv1.DestinationRule{}
	for _, dr := range analysis.All[*networkingv1.DestinationRule](s) {
		for _, sub := range dr.Spec.GetSubsets() {
			k := subset{analysis.FullHost(dr.Spec.GetHost(), dr.Namespace), sub.GetName()}
			known[k] = append(known[k], dr)
		}
	}
	if !s.Known("DestinationRule") {
		return nil
	}
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		for _, d := range destinations(&vs.Spec) {
			if d.GetSubset() == "" {
				continue
			}
			rules := known[subset{analysis.FullHost(d.GetHost(), vs.Namespace), d.GetSubset()}]
			if !slices.ContainsFunc(rules, func(dr *networkingv1.DestinationRule) bool {
				return analysis.VisibleTo(dr.Spec.GetExportTo(), dr.Namespace, vs.Namespace)
			}) {
				out.Add(analysis.ReferencedResourceNotFound, r, d.field+".subset", "host+subset in destinationrule", d.GetHost()+"+"+d.GetSubset())
			}
		}
	}
	return out
}

func virtualServiceGateways(s *analysis.Snapshot) (out analysis.Messages) {
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		for i, name := range vs.Spec.GetGateways() {
			field := at("spec.gateways", i)
			if name == meshGateway {
				continue
			}
			if strings.Contains(name, "-istio-autogenerated-k8s-gateway") {
				out.Add(analysis.ReferencedInternalGateway, r, field, r.FullName(), name)
				continue
			}
			namespace, short := splitName(name, vs.Namespace)
			gw, _, ok := analysis.Find[*networkingv1.Gateway](s, namespace, short)
			if !ok {
				if s.Known("Gateway") {
					out.Add(analysis.ReferencedResourceNotFound, r, field, "gateway", name)
				}
				continue
			}
			if !slices.ContainsFunc(vs.Spec.GetHosts(), func(host string) bool { return gatewayTakes(gw, host, vs.Namespace) }) {
				out.Add(analysis.HostNotFoundInGateway, r, "spec.hosts", vs.Spec.GetHosts(), vs.Name, name)
			}
		}
	}
	return out
}

// splitName reads NAMESPACE/NAME or NAME.
func splitName(name, namespace string) (string, string) {
	if ns, short, ok := strings.Cut(name, "/"); ok {
		return cmp.Or(ns, namespace), short
	}
	return namespace, name
}

// gatewayTakes tells whether some server of a gateway is for a host, as a VirtualService of the namespace writes it.
func gatewayTakes(gw *networkingv1.Gateway, host, namespace string) bool {
	for _, server := range gw.Spec.GetServers() {
		for _, offered := range server.GetHosts() {
			whose, pattern, limited := strings.Cut(offered, "/")
			if !limited {
				whose, pattern = "*", offered
			}
			if whose == "." {
				whose = gw.Namespace
			}
			if (whose == "*" || whose == namespace) && hostsMeet(pattern, host) {
				return true
			}
		}
	}
	return false
}

// hostsMeet tells whether two names, each perhaps with a wildcard in front, have a name in common.
func hostsMeet(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	wild := func(name string) (string, bool) { return strings.CutPrefix(name, "*") }
	suffixA, wildA := wild(a)
	suffixB, wildB := wild(b)
	switch {
	case wildA && wildB:
		return strings.HasSuffix(suffixA, suffixB) || strings.HasSuffix(suffixB, suffixA)
	case wildA:
		return strings.HasSuffix(b, suffixA)
	case wildB:
		return strings.HasSuffix(a, suffixB)
	}
	return a == b
}

func conflictingMeshHosts(s *analysis.Snapshot) (out analysis.Messages) {
	type member struct {
		r  *analysis.Resource
		vs *networkingv1.VirtualService
	}
	byHost := map[string][]member{}
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		if len(vs.Spec.GetGateways()) > 0 && !slices.Contains(vs.Spec.GetGateways(), meshGateway) {
			continue
		}
		for _, host := range vs.Spec.GetHosts() {
			full := analysis.FullHost(host, vs.Namespace)
			if !slices.ContainsFunc(byHost[full], func(m member) bool { return m.r == r }) {
				byHost[full] = append(byHost[full], member{r, vs})
			}
		}
	}
	for host, members := range byHost {
		for _, m := range members {
			var names []string
			for _, other := range members {
				if meets(m.vs, other.vs) {
					names = append(names, other.r.FullName())
				}
			}
			if len(names) > 1 {
				out.Add(analysis.ConflictingMeshHosts, m.r, "spec.hosts", strings.Join(names, ","), host)
			}
		}
	}
	return out
}

// meets tells whether some namespace sees both.
func meets(a, b *networkingv1.VirtualService) bool {
	see := func(vs *networkingv1.VirtualService) []string {
		if len(vs.Spec.GetExportTo()) == 0 {
			return []string{"*"}
		}
		var out []string
		for _, to := range vs.Spec.GetExportTo() {
			if to == "." {
				to = vs.Namespace
			}
			out = append(out, to)
		}
		return out
	}
	mine, theirs := see(a), see(b)
	if slices.Contains(mine, "~") || slices.Contains(theirs, "~") {
		return a == b
	}
	return slices.Contains(mine, "*") || slices.Contains(theirs, "*") || slices.ContainsFunc(mine, func(ns string) bool { return slices.Contains(theirs, ns) })
}

// claimPrefix is that of headers that stand for claims of a token.
const claimPrefix = "@request.auth.claims"

func claimRoutes(s *analysis.Snapshot) (out analysis.Messages) {
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		claim, field := claimIn(&vs.Spec)
		if claim == "" {
			continue
		}
		for _, name := range vs.Spec.GetGateways() {
			namespace, short := splitName(name, vs.Namespace)
			if gw, _, ok := analysis.Find[*networkingv1.Gateway](s, namespace, short); ok {
				for _, w := range s.Select("", gw.Spec.GetSelector()) {
					if !authenticates(s, w) {
						out.Add(analysis.JwtRoutingWithoutAuthentication, r, field, claim, namespace+"/"+short, w.Name)
					}
				}
			}
		}
	}
	return out
}

func claimIn(vs *networkingapi.VirtualService) (claim, field string) {
	for i, rule := range vs.GetHttp() {
		for j, m := range rule.GetMatch() {
			for _, headers := range []struct {
				field string
				list  map[string]*networkingapi.StringMatch
			}{{"headers", m.GetHeaders()}, {"withoutHeaders", m.GetWithoutHeaders()}} {
				for name := range headers.list {
					if strings.HasPrefix(name, claimPrefix) {
						return name, at(at("spec.http", i)+".match", j) + "." + headers.field + "." + name
					}
				}
			}
		}
	}
	return "", ""
}

// gatewayOf returns the Gateway whose pods a workload is one of, or "".
func gatewayOf(s *analysis.Snapshot, w *analysis.Workload) string {
	name := w.Labels[analysis.LabelGatewayName]
	if _, _, ok := analysis.Find[*gatewayv1.Gateway](s, w.Namespace, name); !ok {
		return ""
	}
	return name
}
