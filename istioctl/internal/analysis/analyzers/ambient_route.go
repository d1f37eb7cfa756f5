package analyzers

import (
	"fmt"
	"slices"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

func meshRoutes(s *analysis.Snapshot) (out analysis.Messages) {
	byHost := map[string]apiRoute{}
	for route := range apiRoutes(s) {
		route.services(s, func(i int, p gatewayv1.ParentReference, h *analysis.Host) {
			if route.http {
				byHost[h.Name] = route
			}
			if knownNamespace(s, h.Namespace) && s.Binding(h).Waypoint == "" && !injectedHost(s, h) {
				out.Add(analysis.IneffectivePolicy, route.r, at("spec.parentRefs", i), fmt.Sprintf("%s %s has no waypoint, so nothing applies the route; create one with 'istioctl waypoint apply -n %s --enroll-namespace'",
					h.Resource.Kind, h.Resource.FullName(), h.Namespace))
			}
		})
	}
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		if len(vs.Spec.GetGateways()) > 0 && !slices.Contains(vs.Spec.GetGateways(), meshGateway) {
			continue
		}
		for i, host := range vs.Spec.GetHosts() {
			field := at("spec.hosts", i)
			h := s.Host(host, vs.Namespace)
			if h == nil {
				continue
			}
			if route, ok := byHost[h.Name]; ok && len(vs.Spec.GetHttp()) > 0 {
				out.Add(analysis.RouteAndVirtualService, r, field, route.r.Kind, route.r.FullName(), r.FullName(), h.Name)
			}
			if h.Service != nil && s.AmbientNamespace(h.Namespace) && s.Binding(h).Waypoint == "" {
				out.Add(analysis.IneffectivePolicy, r, field, fmt.Sprintf("Service %s is in the ambient mesh without a waypoint, so nothing applies the VirtualService's routes; create one with 'istioctl waypoint apply -n %s --enroll-namespace'",
					h.Resource.FullName(), h.Namespace))
			}
		}
	}
	return out
}

// injectedHost tells whether callers may have proxies of their own, which apply routes too.
func injectedHost(s *analysis.Snapshot, h *analysis.Host) bool {
	ns, _, ok := analysis.Find[*corev1.Namespace](s, "", h.Namespace)
	return ok && injected(ns)
}

// withoutEffect reports objects that ztunnel ignores and that are not attached to a waypoint, and kinds that nothing here reads.
func withoutEffect(s *analysis.Snapshot) (out analysis.Messages) {
	for r, ra := range analysis.All[*securityv1.RequestAuthentication](s) {
		if ra.Spec.GetTargetRef() != nil || len(ra.Spec.GetTargetRefs()) > 0 {
			continue
		}
		selected := s.Select(scope(s, ra.Namespace), ra.Spec.GetSelector().GetMatchLabels())
		others := slices.ContainsFunc(selected, func(w *analysis.Workload) bool { return !s.InAmbient(w) })
		if len(selected) == 0 && !s.Live {
			others = !s.AmbientNamespace(ra.Namespace)
		}
		if !others && (len(selected) > 0 || s.AmbientNamespace(ra.Namespace)) {
			out.Add(analysis.IneffectivePolicy, r, "metadata.name", "ztunnel does not look at tokens; attach the RequestAuthentication to a waypoint by targetRefs")
		}
	}
	for r, o := range analysis.All[*networkingv1alpha3.EnvoyFilter](s) {
		if o.Spec.GetWorkloadSelector() == nil && s.AmbientNamespace(o.Namespace) || attachedToWaypoint(s, o) {
			out.Add(analysis.IneffectivePolicy, r, "metadata.name", "ztunnels and waypoints take no patches of Envoy's configuration")
		}
	}
	return out
}

func attachedToWaypoint(s *analysis.Snapshot, o *networkingv1alpha3.EnvoyFilter) bool {
	for _, p := range o.Spec.GetConfigPatches() {
		if p.GetMatch().GetContext() == networkingapi.EnvoyFilter_WAYPOINT {
			return true
		}
	}
	for _, t := range o.Spec.GetTargetRefs() {
		if s.Waypoint(o.Namespace+"/"+t.GetName()) != nil {
			return true
		}
	}
	return false
}

// ingressBypass reports gateways that send to a service past its waypoint, where that has something to enforce.
func ingressBypass(s *analysis.Snapshot) (out analysis.Messages) {
	enforcing := map[string]bool{}
	for _, p := range policies(s) {
		for _, t := range p.targets {
			if t.GetKind() == "Service" {
				enforcing[s.Ambient.Hostname(p.r.Namespace, t.GetName())] = true
			}
		}
	}
	for route := range apiRoutes(s) {
		route.services(s, func(_ int, _ gatewayv1.ParentReference, h *analysis.Host) { enforcing[h.Name] = true })
	}
	skips := func(h *analysis.Host) string {
		if h == nil || !enforcing[h.Name] || ingressUsesWaypoint(s, h) {
			return ""
		}
		if b := s.Binding(h); b.Reason == ambient.ReasonWaypointAccepted {
			return b.Waypoint
		}
		return ""
	}
	for route := range apiRoutes(s) {
		for _, p := range route.parents {
			full := text(p.Namespace, route.namespace) + "/" + string(p.Name)
			if text(p.Kind, "Gateway") != "Gateway" || s.Waypoint(full) != nil {
				continue
			}
			for _, b := range route.backends {
				h := s.Host(s.Ambient.Hostname(text(b.Namespace, route.namespace), string(b.Name)), route.namespace)
				if w := skips(h); w != "" && text(b.Kind, "Service") == "Service" {
					out.Add(analysis.WaypointIgnoredByGateways, h.Resource, "metadata.labels", full, w)
				}
			}
		}
	}
	for _, vs := range analysis.All[*networkingv1.VirtualService](s) {
		for _, name := range vs.Spec.GetGateways() {
			if name == meshGateway {
				continue
			}
			for _, d := range destinations(&vs.Spec) {
				h := s.Host(d.GetHost(), vs.Namespace)
				if w := skips(h); w != "" {
					out.Add(analysis.WaypointIgnoredByGateways, h.Resource, "metadata.labels", name, w)
				}
			}
		}
	}
	return out
}
