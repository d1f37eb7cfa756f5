package analyzers

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func gatewayAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "gateway.IngressGatewayPortAnalyzer", Description: "Checks a gateway's ports against the gateway's Kubernetes service ports",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.GatewayPortNotOnService},
			Run:   gatewayPorts,
		},
		{
			Name: "gateway.ConflictingGatewayAnalyzer", Description: "Checks a gateway's selector, port number and hosts",
			Codes: []analysis.Code{analysis.ConflictingGateways},
			Run:   conflictingGateways,
		},
		{
			Name: "gateway.CertificateAnalyzer", Description: "Checks a gateway certificate",
			Codes: []analysis.Code{analysis.GatewayDuplicateCertificate},
			Run:   gatewayCertificates,
		},
		{
			Name: "gateway.SecretAnalyzer", Description: "Checks a gateway's referenced secrets for correctness",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.InvalidGatewayCredential},
			Run:   gatewaySecrets,
		},
	}
}

func gatewayPorts(s *analysis.Snapshot) (out analysis.Messages) {
	for r, gw := range analysis.All[*networkingv1.Gateway](s) {
		selector := gw.Spec.GetSelector()
		if len(selector) == 0 {
			continue
		}
		pods := s.Select("", selector)
		if len(pods) == 0 {
			if s.Known("Pod") {
				out.Add(analysis.ReferencedResourceNotFound, r, "spec.selector", "selector", labelText(selector))
			}
			continue
		}
		offered, any := portsBehind(s, pods)
		if !any || !s.Known("Service") {
			continue
		}
		for i, server := range gw.Spec.GetServers() {
			if n := server.GetPort().GetNumber(); n != 0 && !offered[n] {
				out.Add(analysis.GatewayPortNotOnService, r, at("spec.servers", i)+".port.number", n, labelText(selector))
			}
		}
	}
	return out
}

// portsBehind are the ports, and their targets, of the services of some workloads.
func portsBehind(s *analysis.Snapshot, pods []*analysis.Workload) (ports map[uint32]bool, any bool) {
	ports = map[uint32]bool{}
	for _, svc := range analysis.All[*corev1.Service](s) {
		if len(svc.Spec.Selector) == 0 || !slices.ContainsFunc(pods, func(w *analysis.Workload) bool {
			return w.Namespace == svc.Namespace && analysis.Matches(svc.Spec.Selector, w.Labels)
		}) {
			continue
		}
		any = true
		for _, p := range svc.Spec.Ports {
			ports[uint32(p.Port)] = true
			if n := p.TargetPort.IntValue(); n > 0 {
				ports[uint32(n)] = true
			}
		}
	}
	return ports, any
}

// offer is a host at a port of a classic gateway's pods.
type offer struct {
	r        *analysis.Resource
	selector map[string]string
	server   *networkingapi.Server
	field    string
}

func conflictingGateways(s *analysis.Snapshot) (out analysis.Messages) {
	byPort := map[uint32][]offer{}
	for r, gw := range analysis.All[*networkingv1.Gateway](s) {
		for i, server := range gw.Spec.GetServers() {
			if n := server.GetPort().GetNumber(); n != 0 {
				byPort[n] = append(byPort[n], offer{r: r, selector: gw.Spec.GetSelector(), server: server, field: at("spec.servers", i)})
			}
		}
	}
	for port, offers := range byPort {
		for _, one := range offers {
			var names, hosts []string
			for _, other := range offers {
				if other.r == one.r || !samePods(one.selector, other.selector) || one.server.GetBind() != other.server.GetBind() {
					continue
				}
				if common := inCommon(one, other); len(common) > 0 {
					names, hosts = append(names, other.r.FullName()), append(hosts, common...)
				}
			}
			if len(names) > 0 {
				slices.Sort(hosts)
				out.Add(analysis.ConflictingGateways, one.r, one.field, strings.Join(names, ","), labelText(one.selector), strconv.Itoa(int(port)), strings.Join(slices.Compact(hosts), ","))
			}
		}
	}
	return out
}

// samePods tells whether one selector selects pods that the other does, too, as far as the selectors say.
func samePods(a, b map[string]string) bool {
	return analysis.Matches(a, b) || analysis.Matches(b, a)
}

// inCommon are the hosts that both servers have. A namespace in front limits who may attach.
func inCommon(a, b offer) []string {
	var out []string
	for _, mine := range a.server.GetHosts() {
		for _, theirs := range b.server.GetHosts() {
			nsA, hostA := limit(mine, a.r.Namespace)
			nsB, hostB := limit(theirs, b.r.Namespace)
			if hostA == hostB && (nsA == "*" || nsB == "*" || nsA == nsB) {
				out = append(out, mine)
			}
		}
	}
	return out
}

func limit(host, namespace string) (string, string) {
	ns, name, ok := strings.Cut(host, "/")
	if !ok {
		return "*", host
	}
	if ns == "." {
		ns = namespace
	}
	return ns, name
}

func gatewayCertificates(s *analysis.Snapshot) (out analysis.Messages) {
	byCertificate := map[string][]offer{}
	for r, gw := range analysis.All[*networkingv1.Gateway](s) {
		for i, server := range gw.Spec.GetServers() {
			tls := server.GetTls()
			if name := cmp.Or(tls.GetCredentialName(), tls.GetServerCertificate()); name != "" {
				byCertificate[name] = append(byCertificate[name], offer{r: r, selector: gw.Spec.GetSelector(), server: server, field: at("spec.servers", i) + ".tls"})
			}
		}
	}
	for _, offers := range byCertificate {
		for _, one := range offers {
			names := []string{one.r.FullName()}
			for _, other := range offers {
				if other.r != one.r && samePods(one.selector, other.selector) && !slices.Contains(names, other.r.FullName()) {
					names = append(names, other.r.FullName())
				}
			}
			if len(names) > 1 {
				slices.Sort(names)
				out.Add(analysis.GatewayDuplicateCertificate, one.r, one.field, names)
			}
		}
	}
	return out
}
