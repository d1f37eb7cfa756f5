package analyzers

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func deploymentAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "deployment.MultiServiceAnalyzer", Description: "Checks association between services and pods",
			Codes: []analysis.Code{analysis.DeploymentAssociated, analysis.DeploymentConflictingPorts},
			Run:   multiService,
		},
		{
			Name: "deployment.ApplicationUIDAnalyzer", Description: "Checks invalid application UID",
			Codes: []analysis.Code{analysis.InvalidApplicationUID},
			Run:   applicationUID,
		},
	}
}

// multiService compares the services of each Deployment of the mesh with one another.
func multiService(s *analysis.Snapshot) (out analysis.Messages) {
	services := map[string][]*corev1.Service{}
	for _, svc := range analysis.All[*corev1.Service](s) {
		if len(svc.Spec.Selector) > 0 {
			services[svc.Namespace] = append(services[svc.Namespace], svc)
		}
	}
	for r, d := range analysis.All[*appsv1.Deployment](s) {
		if s.SystemNamespace(d.Namespace) {
			continue
		}
		var own []*corev1.Service
		for _, svc := range services[d.Namespace] {
			if analysis.Matches(svc.Spec.Selector, d.Spec.Template.Labels) {
				own = append(own, svc)
			}
		}
		if len(own) > 1 {
			protocolsOf(&out, r, own)
			portsOf(&out, r, own)
		}
	}
	return out
}

// protocolsOf reports targets that different services reach by different protocols.
func protocolsOf(out *analysis.Messages, r *analysis.Resource, services []*corev1.Service) {
	type use struct{ names, protocols map[string]bool }
	uses := map[int32]*use{}
	for _, svc := range services {
		for _, p := range svc.Spec.Ports {
			port := p.TargetPort.IntVal
			if p.TargetPort.StrVal != "" {
				continue
			}
			if port == 0 {
				port = p.Port
			}
			u := uses[port]
			if u == nil {
				u = &use{map[string]bool{}, map[string]bool{}}
				uses[port] = u
			}
			u.names[svc.Name] = true
			u.protocols[string(analysis.ServicePort(p))] = true
		}
	}
	for _, port := range slices.Sorted(maps.Keys(uses)) {
		if u := uses[port]; len(u.names) > 1 && len(u.protocols) > 1 {
			out.Add(analysis.DeploymentAssociated, r, "metadata.name", r.FullName(), port, slices.Sorted(maps.Keys(u.names)))
		}
	}
}

// portsOf reports targets that different services reach by different ports.
func portsOf(out *analysis.Messages, r *analysis.Resource, services []*corev1.Service) {
	names, ports := map[string]map[string]bool{}, map[string]map[int32]bool{}
	for _, svc := range services {
		for _, p := range svc.Spec.Ports {
			to := target(p)
			if names[to] == nil {
				names[to], ports[to] = map[string]bool{}, map[int32]bool{}
			}
			names[to][svc.Name], ports[to][p.Port] = true, true
		}
	}
	for _, to := range slices.Sorted(maps.Keys(names)) {
		if len(names[to]) > 1 && len(ports[to]) > 1 {
			out.Add(analysis.DeploymentConflictingPorts, r, "metadata.name", r.FullName(), slices.Sorted(maps.Keys(names[to])), to, slices.Sorted(maps.Keys(ports[to])))
		}
	}
}

// proxyUID is the user as which proxies run, whose traffic is not redirected.
const proxyUID = 1337

func applicationUID(s *analysis.Snapshot) (out analysis.Messages) {
	for _, w := range s.Workloads("") {
		if w.Spec == nil || w.Gateway() || s.SystemNamespace(w.Namespace) {
			continue
		}
		base := "spec."
		if w.Pod == nil {
			base = "spec.template.spec."
		}
		if c := w.Spec.SecurityContext; c != nil && c.RunAsUser != nil && *c.RunAsUser == proxyUID {
			out.Add(analysis.InvalidApplicationUID, w.Resource, base+"securityContext.runAsUser")
			continue
		}
		for i, c := range w.Spec.Containers {
			if c.Name != "istio-proxy" && c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil && *c.SecurityContext.RunAsUser == proxyUID {
				out.Add(analysis.InvalidApplicationUID, w.Resource, at(base+"containers", i)+".securityContext.runAsUser")
			}
		}
	}
	return out
}
