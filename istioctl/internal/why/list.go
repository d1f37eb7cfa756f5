package why

import (
	"net/netip"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// EachPod calls take with every pod.
func (m *Model) EachPod(take func(*corev1.Pod)) {
	for _, p := range all[*corev1.Pod](m, "Pod") {
		take(p)
	}
}

// EachGateway calls take with every Gateway of the Gateway API.
func (m *Model) EachGateway(take func(*gatewayv1.Gateway)) {
	for _, gw := range all[*gatewayv1.Gateway](m, "Gateway") {
		take(gw)
	}
}

// EachHTTPRoute calls take with every HTTPRoute.
func (m *Model) EachHTTPRoute(take func(*gatewayv1.HTTPRoute)) {
	for _, r := range m.httpRoutes() {
		take(r)
	}
}

// EachVirtualService calls take with every VirtualService.
func (m *Model) EachVirtualService(take func(*networkingv1.VirtualService)) {
	for _, vs := range m.virtualServices() {
		take(vs)
	}
}

// ClassicSelectors are those of Istio's own Gateways.
func (m *Model) ClassicSelectors() (out []map[string]string) {
	for _, gw := range all[*networkingv1.Gateway](m, "Gateway.networking.istio.io") {
		if len(gw.Spec.GetSelector()) > 0 {
			out = append(out, gw.Spec.GetSelector())
		}
	}
	return out
}

// IsWaypoint is whether a Gateway, by namespace/name, serves as one.
func (m *Model) IsWaypoint(key string) bool {
	ns, name, _ := strings.Cut(key, "/")
	gw := object[*gatewayv1.Gateway](m, "Gateway", ns, name)
	if gw == nil {
		return false
	}
	class := object[*gatewayv1.GatewayClass](m, "GatewayClass", "", string(gw.Spec.GatewayClassName))
	return ambient.NewWaypoint(m.Mesh.Settings(), gw, class) != nil
}

// WorkloadOf is the name by which people know the workload of a pod: Deployment or the like.
func (m *Model) WorkloadOf(p *corev1.Pod) string {
	if t := m.workloads[m.Mesh.Settings().ClusterID+"//Pod/"+p.Namespace+"/"+p.Name]; t != nil {
		return t.Proto.WorkloadName
	}
	return ""
}

// AddressOwner is namespace/name of the workload at an address, or the address.
func (m *Model) AddressOwner(address string) string {
	host, _, err := splitPort(address)
	if err != nil {
		return address
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return address
	}
	if w := m.State.WorkloadByIP(m.Mesh.Settings().Network, ip); w != nil {
		return w.Namespace + "/" + w.Name
	}
	return address
}

// EachOperation calls take with the methods and paths that AuthorizationPolicies speak of, and the policies' namespaces. Either is empty
// where any counts.
func (m *Model) EachOperation(take func(namespace, method, path string)) {
	plain := func(values []string) []string {
		out := []string{""}
		for _, v := range values {
			if v = strings.TrimSuffix(v, "*"); v != "" && !strings.Contains(v, "*") {
				out = append(out, v)
			}
		}
		if len(out) > 1 {
			out = out[1:]
		}
		return out
	}
	for _, ap := range all[*securityv1.AuthorizationPolicy](m, "AuthorizationPolicy") {
		for _, rule := range ap.Spec.GetRules() {
			for _, to := range rule.GetTo() {
				for _, method := range plain(to.GetOperation().GetMethods()) {
					for _, path := range plain(to.GetOperation().GetPaths()) {
						if path == "" || path[0] == '/' {
							take(ap.Namespace, method, path)
						}
					}
				}
			}
		}
	}
}
