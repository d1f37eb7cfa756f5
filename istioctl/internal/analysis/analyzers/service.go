package analyzers

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func serviceAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{{
		Name: "service.PortNameAnalyzer", Description: "Checks the port names associated with each service",
		Codes: []analysis.Code{analysis.PortNameConvention, analysis.ExternalNamePortName},
		Run:   portNames,
	}}
}

func portNames(s *analysis.Snapshot) (out analysis.Messages) {
	for r, svc := range analysis.All[*corev1.Service](s) {
		if s.SystemNamespace(svc.Namespace) {
			continue
		}
		for i, p := range svc.Spec.Ports {
			field := at("spec.ports", i)
			named := analysis.NamedProtocol(p.Name)
			switch {
			case svc.Spec.Type == corev1.ServiceTypeExternalName:
				if named == "" || named == "tcp" || p.Protocol == corev1.ProtocolTCP && strings.HasPrefix(p.Name, "tcp") {
					out.Add(analysis.ExternalNamePortName, r, field)
				}
			case analysis.ServicePort(p) == "" && (p.AppProtocol == nil || *p.AppProtocol == ""):
				out.Add(analysis.PortNameConvention, r, field, p.Name, p.Port, target(p))
			}
		}
	}
	return out
}

// target is where a port of a service leads.
func target(p corev1.ServicePort) string {
	if p.TargetPort.String() == "0" {
		return fmt.Sprint(p.Port)
	}
	return p.TargetPort.String()
}
