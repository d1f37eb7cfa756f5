package analyzers

import (
	"fmt"
	"slices"
	"strconv"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// httpPorts looks at services whose waypoint is told something about HTTP.
func httpPorts(s *analysis.Snapshot) (out analysis.Messages) {
	for route := range apiRoutes(s) {
		if !route.http {
			continue
		}
		route.services(s, func(i int, p gatewayv1.ParentReference, h *analysis.Host) {
			port := uint32(0)
			if p.Port != nil {
				port = uint32(*p.Port)
			}
			speaks(s, &out, route.r, at("spec.parentRefs", i), h, port)
		})
	}
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		if len(vs.Spec.GetHttp()) == 0 || len(vs.Spec.GetGateways()) > 0 && !slices.Contains(vs.Spec.GetGateways(), meshGateway) {
			continue
		}
		for i, host := range vs.Spec.GetHosts() {
			if h := s.Host(host, vs.Namespace); h != nil {
				speaks(s, &out, r, at("spec.hosts", i), h, 0)
			}
		}
	}
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		bare := ap.DeepCopy()
		bare.Spec.TargetRef, bare.Spec.TargetRefs = nil, nil
		if p := ambient.AuthorizationPolicy(s.Ambient, bare); p.Status.Accepted || p.Proto == nil {
			continue
		}
		for i, t := range ap.Spec.GetTargetRefs() {
			if t.GetKind() != "Service" {
				continue
			}
			if h := s.Host(s.Ambient.Hostname(ap.Namespace, t.GetName()), ap.Namespace); h != nil {
				speaks(s, &out, r, at("spec.targetRefs", i), h, 0)
			}
		}
	}
	return out
}

// speaks reports a port that does not speak HTTP, or, of all ports, that none does.
func speaks(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, field string, h *analysis.Host, port uint32) {
	if h.Service == nil || s.Binding(h).Waypoint == "" {
		return
	}
	var undeclared, other []analysis.Port
	for _, p := range h.Ports {
		switch {
		case port != 0 && p.Number != port, p.Protocol == "udp":
		case p.Protocol.HTTP():
			return
		case p.Protocol == "":
			undeclared = append(undeclared, p)
		default:
			other = append(other, p)
		}
	}
	what := fmt.Sprintf("%s %s", r.Kind, r.FullName())
	switch {
	case len(undeclared) > 0:
		out.Add(analysis.PortProtocolUndeclared, r, field, what, strconv.Itoa(int(undeclared[0].Number)), h.Resource.FullName())
	case len(other) > 0:
		out.Add(analysis.PortNotHTTP, r, field, what, strconv.Itoa(int(other[0].Number)), h.Resource.FullName(), other[0].Protocol)
	}
}
