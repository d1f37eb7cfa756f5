package analyzers

import (
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func telemetryAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "telemetry.ProviderAnalyzer", Description: "Validates that providers in telemetry resource is valid",
			Codes: []analysis.Code{analysis.InvalidTelemetryProvider},
			Run:   telemetryProviders,
		},
		{
			Name: "telemetry.SelectorAnalyzer", Description: "Validates that there aren't multiple telemetry resources that select overlapping pods",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.ConflictingTelemetrySelectors, analysis.MultipleTelemetries},
			Run:   telemetrySelectors,
		},
	}
}

func telemetryProviders(s *analysis.Snapshot) (out analysis.Messages) {
	if s.Mesh.GetDefaultProviders() != nil || s.Mesh.GetAccessLogFile() != "" {
		return nil
	}
	for r, t := range analysis.All[*telemetryv1.Telemetry](s) {
		for i, l := range t.Spec.GetAccessLogging() {
			if len(l.GetProviders()) == 0 && !l.GetDisabled().GetValue() {
				out.Add(analysis.InvalidTelemetryProvider, r, at("spec.accessLogging", i), t.Name, t.Namespace)
			}
		}
	}
	return out
}

func telemetrySelectors(s *analysis.Snapshot) (out analysis.Messages) {
	var all []selecting
	for r, t := range analysis.All[*telemetryv1.Telemetry](s) {
		if t.Spec.GetTargetRef() == nil && len(t.Spec.GetTargetRefs()) == 0 {
			all = append(all, selecting{r, t.Spec.GetSelector().GetMatchLabels(), "spec.selector.matchLabels"})
		}
	}
	overlaps(s, &out, all, analysis.ConflictingTelemetrySelectors, analysis.MultipleTelemetries)
	return out
}
