package describe

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// route is a route of the Gateway API, as far as it is described.
type route struct {
	kind, namespace, name string
	hosts                 []string
	parents               []gatewayv1.ParentReference
	status                []gatewayv1.RouteParentStatus
	rules                 []routeRule
}

type routeRule struct {
	match    string
	backends []gatewayv1.BackendRef
}

func hostnames(all []gatewayv1.Hostname) []string {
	var out []string
	for _, h := range all {
		out = append(out, string(h))
	}
	return out
}

func httpRoute(o *gatewayv1.HTTPRoute) route {
	out := route{kind: "HTTPRoute", namespace: o.Namespace, name: o.Name, hosts: hostnames(o.Spec.Hostnames), parents: o.Spec.ParentRefs, status: o.Status.Parents}
	for _, r := range o.Spec.Rules {
		var one routeRule
		var matches []string
		for _, match := range r.Matches {
			matches = append(matches, httpRouteMatch(match))
		}
		one.match = cmp.Or(strings.Join(matches, ", "), "/*")
		for _, b := range r.BackendRefs {
			one.backends = append(one.backends, b.BackendRef)
		}
		out.rules = append(out.rules, one)
	}
	return out
}

func httpRouteMatch(match gatewayv1.HTTPRouteMatch) string {
	var parts []string
	if match.Path != nil && match.Path.Value != nil {
		value := *match.Path.Value
		switch kind := match.Path.Type; {
		case kind == nil || *kind == gatewayv1.PathMatchPathPrefix:
			value = strings.TrimSuffix(value, "/") + "/*"
		case *kind == gatewayv1.PathMatchRegularExpression:
			value = "~" + value
		}
		parts = append(parts, value)
	}
	if match.Method != nil {
		parts = append(parts, "method "+string(*match.Method))
	}
	for _, h := range match.Headers {
		parts = append(parts, fmt.Sprintf("header %s=%s", h.Name, h.Value))
	}
	for _, q := range match.QueryParams {
		parts = append(parts, fmt.Sprintf("parameter %s=%s", q.Name, q.Value))
	}
	return cmp.Or(strings.Join(parts, " and "), "/*")
}

func grpcRoute(o *gatewayv1.GRPCRoute) route {
	out := route{kind: "GRPCRoute", namespace: o.Namespace, name: o.Name, hosts: hostnames(o.Spec.Hostnames), parents: o.Spec.ParentRefs, status: o.Status.Parents}
	for _, r := range o.Spec.Rules {
		one := routeRule{match: "/*"}
		var matches []string
		for _, match := range r.Matches {
			if match.Method != nil {
				matches = append(matches, "/"+cmp.Or(deref(match.Method.Service), "*")+"/"+cmp.Or(deref(match.Method.Method), "*"))
			}
		}
		one.match = cmp.Or(strings.Join(matches, ", "), one.match)
		for _, b := range r.BackendRefs {
			one.backends = append(one.backends, b.BackendRef)
		}
		out.rules = append(out.rules, one)
	}
	return out
}

func tcpRoute(o *gatewayv1.TCPRoute) route {
	out := route{kind: "TCPRoute", namespace: o.Namespace, name: o.Name, parents: o.Spec.ParentRefs, status: o.Status.Parents}
	for _, r := range o.Spec.Rules {
		out.rules = append(out.rules, routeRule{match: "TCP", backends: r.BackendRefs})
	}
	return out
}

func tlsRoute(o *gatewayv1.TLSRoute) route {
	out := route{kind: "TLSRoute", namespace: o.Namespace, name: o.Name, hosts: hostnames(o.Spec.Hostnames), parents: o.Spec.ParentRefs, status: o.Status.Parents}
	for _, r := range o.Spec.Rules {
		out.rules = append(out.rules, routeRule{match: "TLS", backends: r.BackendRefs})
	}
	return out
}

// parent is the namespace and name of a parent, if it is of a kind.
func (r route) parent(ref gatewayv1.ParentReference, group, kind string) (namespace, name string, ok bool) {
	have, of := "Gateway", gatewayv1.GroupName
	if ref.Kind != nil {
		have = string(*ref.Kind)
	}
	if ref.Group != nil {
		of = string(*ref.Group)
	}
	namespace = r.namespace
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return namespace, string(ref.Name), have == kind && of == group
}

// leads tells whether a route has a service among its destinations.
func (r route) leads(s *corev1.Service) bool {
	for _, rule := range r.rules {
		for _, b := range rule.backends {
			namespace, name := r.backend(b)
			if namespace == s.Namespace && name == s.Name {
				return true
			}
		}
	}
	return false
}

func (r route) backend(b gatewayv1.BackendRef) (namespace, name string) {
	namespace = r.namespace
	if b.Namespace != nil {
		namespace = string(*b.Namespace)
	}
	return namespace, string(b.Name)
}

func (r route) describe(p *printer, near string) {
	for _, rule := range r.rules {
		var to []string
		for _, b := range rule.backends {
			namespace, name := r.backend(b)
			text := displayed(namespace, name, near)
			if len(rule.backends) > 1 {
				weight := int32(1)
				if b.Weight != nil {
					weight = *b.Weight
				}
				text += fmt.Sprintf(" Weight %d", weight)
			}
			to = append(to, text)
		}
		p.line(1, "%s -> %s", rule.match, cmp.Or(strings.Join(to, ", "), "answered by its filters"))
	}
	for _, parent := range r.status {
		for _, c := range parent.Conditions {
			if c.Status == "False" {
				p.line(1, "WARNING: %s of parent %s is False: %s", c.Type, parent.ParentRef.Name, cmp.Or(c.Message, c.Reason))
			}
		}
	}
}

// serviceRoutes describes the routes whose parent is a service.
func (m *Mesh) serviceRoutes(p *printer, s *corev1.Service, l7 bool) {
	for _, r := range m.routes {
		for _, ref := range r.parents {
			if namespace, name, ok := r.parent(ref, "", "Service"); !ok || namespace != s.Namespace || name != s.Name {
				continue
			}
			p.line(0, "%s: %s", r.kind, displayed(r.namespace, r.name, s.Namespace))
			if !l7 {
				p.line(1, "WARNING: without a waypoint it has no effect: istioctl waypoint apply -n %s --enroll-namespace", s.Namespace)
			}
			r.describe(p, s.Namespace)
			break
		}
	}
}
