package why

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// lookForMistakes tells of objects that are meant for the destination, as far as one can see, and have no effect on it.
func (w *walk) lookForMistakes(p *path) {
	if w.to == nil {
		return
	}
	w.lookAtKinds()
	w.lookAtSelectors()
	w.lookAtTokens(p)
	s := w.m.service(w.to.service)
	if s == nil {
		return
	}
	w.lookAtRules(s)
	w.lookAtScopes(s)
	w.lookAtGroups(s)
	w.lookAtDeployments(s)
}

// lookAtRules tells of DestinationRules whose host is nearly the destination.
func (w *walk) lookAtRules(s *ambient.Service) {
	for _, dr := range all[*networkingv1.DestinationRule](w.m, "DestinationRule") {
		host := dr.Spec.GetHost()
		full := host
		if !strings.Contains(host, ".") {
			full = w.m.Mesh.Settings().Hostname(dr.Namespace, host)
		}
		if full != s.Proto.Hostname && len(w.m.State.ServicesByHostname(full)) == 0 && editDistance(full, s.Proto.Hostname) <= 2 {
			w.warn(w.m.World.Of(dr, "spec.host"), "correct the host to "+s.Proto.Name, "DestinationRule %s/%s has no effect: its host %q is no service; %q may be meant", dr.Namespace, dr.Name, host, s.Proto.Name)
		}
	}
}

// lookAtScopes tells of VirtualServices for the destination that are for gateways only, or for another namespace only.
func (w *walk) lookAtScopes(s *ambient.Service) {
	for _, vs := range w.m.virtualServices() {
		if !slices.ContainsFunc(vs.Spec.GetHosts(), func(h string) bool {
			if !strings.Contains(h, ".") && h != "*" {
				h = w.m.Mesh.Settings().Hostname(vs.Namespace, h)
			}
			return h == s.Proto.Hostname
		}) {
			continue
		}
		gateways := vs.Spec.GetGateways()
		switch {
		case w.from.gateway == "" && len(gateways) > 0 && !slices.Contains(gateways, "mesh"):
			w.warn(w.m.World.Of(vs, "spec.gateways"), "add mesh to its gateways", "VirtualService %s/%s has no effect on calls from the mesh: it is for gateways only (%s)", vs.Namespace, vs.Name, strings.Join(gateways, ", "))
		case w.waypoint && !analysis.VisibleTo(vs.Spec.GetExportTo(), vs.Namespace, s.Proto.Namespace):
			w.warn(w.m.World.Of(vs, "spec.exportTo"), "add namespace "+s.Proto.Namespace+" to exportTo, or put it into that namespace",
				"VirtualService %s/%s has no effect: it is not exported to namespace %s, whose waypoint would apply it", vs.Namespace, vs.Name, s.Proto.Namespace)
		}
	}
}

// lookAtGroups tells of routes that name the destination as a parent in a group that has no such kind: without a group it is the Gateway API's.
func (w *walk) lookAtGroups(s *ambient.Service) {
	kind, group := "Service", ""
	if s.Entry != "" {
		kind, group = "ServiceEntry", "networking.istio.io"
	}
	for _, r := range w.m.routes() {
		for i, ref := range r.parents {
			ns, have := r.GetNamespace(), gatewayv1.GroupName
			if ref.Namespace != nil {
				ns = string(*ref.Namespace)
			}
			if ref.Group != nil {
				have = string(*ref.Group)
			}
			if ref.Kind != nil && string(*ref.Kind) == kind && ns == s.Proto.Namespace && string(ref.Name) == s.Proto.Name && have != group {
				w.warn(w.m.World.Of(r, fmt.Sprintf("spec.parentRefs[%d]", i)), fmt.Sprintf("set group: %q", group), "%s is attached to nothing: there is no kind %s in group %q", r, kind, have)
			}
		}
	}
}

// lookAtKinds tells of objects that no proxy of this mesh takes.
func (w *walk) lookAtKinds() {
	b, _ := w.binding()
	waypoint, _, _ := strings.Cut(b.Waypoint, "/")
	near := []string{w.destinationNamespace(), waypoint, w.m.Mesh.Settings().RootNamespace}
	tell := func(kind string, o kube.Object, remedy string) {
		if ns := o.GetNamespace(); ns != "" && slices.Contains(near, ns) {
			w.warn(w.m.World.Of(o, "kind"), remedy, "%s %s/%s has no effect: proxies of this mesh take none", kind, ns, o.GetName())
		}
	}
	for _, o := range all[*extensionsv1alpha1.WasmPlugin](w.m, "WasmPlugin") {
		tell("WasmPlugin", o, "use an external authorizer (AuthorizationPolicy with action CUSTOM)")
	}
	for _, o := range all[*networkingv1alpha3.EnvoyFilter](w.m, "EnvoyFilter") {
		tell("EnvoyFilter", o, "use the API for what it does (VirtualService, HTTPRoute, RateLimitPolicy, Telemetry, AuthorizationPolicy)")
	}
}

// lookAtSelectors tells of policies in the destination's namespace that select no pod.
func (w *walk) lookAtSelectors() {
	ns := w.destinationNamespace()
	tell := func(kind string, o kube.Object, selector map[string]string) {
		if o.GetNamespace() != ns || ns == "" || len(selector) == 0 {
			return
		}
		for _, t := range w.m.workloads {
			if t.Proto.GetNamespace() == ns && matchesSelectorSet(selector, t.Labels) {
				return
			}
		}
		w.warn(w.m.World.Of(o, "spec.selector.matchLabels"), "correct the labels of the selector", "%s %s/%s selects no pod, and has no effect", kind, ns, o.GetName())
	}
	for _, o := range all[*securityv1.PeerAuthentication](w.m, "PeerAuthentication") {
		tell("PeerAuthentication", o, o.Spec.GetSelector().GetMatchLabels())
	}
	for _, o := range all[*securityv1.AuthorizationPolicy](w.m, kindPolicy) {
		tell(kindPolicy, o, o.Spec.GetSelector().GetMatchLabels())
	}
	for _, o := range all[*securityv1.RequestAuthentication](w.m, kindTokens) {
		tell(kindTokens, o, o.Spec.GetSelector().GetMatchLabels())
	}
}

// lookAtTokens tells that a RequestAuthentication by itself asks nobody for a token.
func (w *walk) lookAtTokens(p *path) {
	if p.verdict.Outcome != Allowed {
		return
	}
	for _, s := range w.asked {
		needed := func(ap *securityv1.AuthorizationPolicy) bool {
			text, _ := rulesText(ap, w.portAsked())
			return strings.Contains(text, "requestPrincipals") || strings.Contains(text, "request.auth")
		}
		if slices.ContainsFunc(policy.Attached(s.target(), all[*securityv1.AuthorizationPolicy](w.m, kindPolicy)), needed) {
			continue
		}
		for _, ra := range policy.AttachedRequestAuthentications(s.target(), all[*securityv1.RequestAuthentication](w.m, kindTokens)) {
			elsewhere := slices.ContainsFunc(ra.Spec.GetJwtRules(), func(r *securityapi.JWTRule) bool {
				return len(r.GetFromHeaders())+len(r.GetFromParams())+len(r.GetFromCookies()) > 0
			})
			if elsewhere || w.request("").Header.Value("authorization") != "" {
				continue
			}
			w.warn(w.m.World.Of(ra, "spec"), "add an AuthorizationPolicy with the same targetRefs that asks for requestPrincipals: [\"*\"], if a token is to be required",
				"RequestAuthentication %s/%s refuses wrong tokens only: requests without one pass", ra.Namespace, ra.Name)
		}
	}
}

// lookAtDeployments tells of labels that count on pods, services and namespaces, and are on the Deployment of the destination's pods.
func (w *walk) lookAtDeployments(s *ambient.Service) {
	for _, d := range w.m.deployments() {
		if d.Namespace != s.Proto.Namespace || len(s.Selector) == 0 || !matchesSelectorSet(s.Selector, d.Spec.Template.Labels) {
			continue
		}
		for _, label := range []string{"istio.io/use-waypoint", "istio.io/dataplane-mode", "istio.io/ingress-use-waypoint"} {
			if d.Labels[label] == "" || d.Spec.Template.Labels[label] != "" {
				continue
			}
			on := "the Service or the namespace"
			if label == "istio.io/dataplane-mode" {
				on = "the namespace, or spec.template.metadata.labels"
			}
			w.warn(w.m.World.Of(d, labelField(label)), "put it on "+on, "label %s has no effect on a Deployment (%s/%s)", label, d.Namespace, d.Name)
		}
	}
}

// protocolMisses explains a port of a gateway that nobody opens, because its protocol is not that of the VirtualServices bound to it.
func (s *station) protocolMisses(v Verdict, port uint16) Verdict {
	w := s.w
	for _, gw := range s.classicGateways() {
		for i, server := range gw.Spec.GetServers() {
			protocol := strings.ToUpper(server.GetPort().GetProtocol())
			if uint16(server.GetPort().GetNumber()) != port || protocol == "HTTP" || protocol == "HTTPS" || protocol == "HTTP2" || protocol == "GRPC" {
				continue
			}
			for _, vs := range w.m.virtualServices() {
				bound := slices.Contains(vs.Spec.GetGateways(), gw.Namespace+"/"+gw.Name) || vs.Namespace == gw.Namespace && slices.Contains(vs.Spec.GetGateways(), gw.Name)
				if !bound || len(vs.Spec.GetHttp()) == 0 || len(vs.Spec.GetTcp())+len(vs.Spec.GetTls()) > 0 {
					continue
				}
				v.Cause += fmt.Sprintf(": VirtualService %s/%s has rules for HTTP only, and port %d of Gateway %s/%s is for %s", vs.Namespace, vs.Name, port, gw.Namespace, gw.Name, protocol)
				v.Remedy = "let the server's protocol be HTTP, or write rules under tcp"
				v = v.about(w.m.World.Of(gw, fmt.Sprintf("spec.servers[%d].port.protocol", i)), w.m.World.Of(vs, "spec.http"))
			}
		}
	}
	return v
}
