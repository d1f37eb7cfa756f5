package analyzers

import (
	"maps"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func sidecarAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{{
		Name: "sidecar.SelectorAnalyzer", Description: "Validates that sidecars that define a workload selector match at least one pod, and that there aren't multiple sidecar resources that select overlapping pods",
		Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.ConflictingSidecarSelectors, analysis.MultipleSidecarsWithoutSelectors, analysis.IneffectivePolicy},
		Run:   sidecars,
	}}
}

func sidecars(s *analysis.Snapshot) (out analysis.Messages) {
	var all []selecting
	for r, o := range analysis.All[*networkingv1.Sidecar](s) {
		one := selecting{r, o.Spec.GetWorkloadSelector().GetLabels(), "spec.workloadSelector.labels"}
		if ineffective := sidecarInAmbient(s, one); ineffective != "" {
			out.Add(analysis.IneffectivePolicy, r, "metadata.name", ineffective)
			continue
		}
		all = append(all, one)
	}
	overlaps(s, &out, all, analysis.ConflictingSidecarSelectors, analysis.MultipleSidecarsWithoutSelectors)
	return out
}

func sidecarInAmbient(s *analysis.Snapshot, o selecting) string {
	if len(o.selector) == 0 {
		if s.AmbientNamespace(o.r.Namespace) {
			return "namespace is in ambient mode, the policy has no impact"
		}
		return ""
	}
	for _, w := range s.Select(o.r.Namespace, o.selector) {
		if s.InAmbient(w) {
			return "selected workload is in ambient mode, the policy has no impact"
		}
	}
	return ""
}

// selecting is an object that is for the workloads of its namespace that a selector selects, or for all.
type selecting struct {
	r        *analysis.Resource
	selector map[string]string
	field    string
}

// overlaps reports objects of one kind that are for the same workloads, and those that are for none.
func overlaps(s *analysis.Snapshot, out *analysis.Messages, all []selecting, conflict, several analysis.Code) {
	whole := map[string][]selecting{}
	byWorkload := map[*analysis.Workload][]selecting{}
	for _, o := range all {
		if len(o.selector) == 0 {
			whole[o.r.Namespace] = append(whole[o.r.Namespace], o)
			continue
		}
		selected := s.Select(o.r.Namespace, o.selector)
		if len(selected) == 0 && s.Known("Pod") && (s.Live || s.Workloads(o.r.Namespace) != nil) {
			out.Add(analysis.ReferencedResourceNotFound, o.r, o.field, "selector", labelText(o.selector))
		}
		for _, w := range selected {
			byWorkload[w] = append(byWorkload[w], o)
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(whole)) {
		if len(whole[ns]) < 2 {
			continue
		}
		for _, o := range whole[ns] {
			out.Add(several, o.r, "metadata.name", names(whole[ns]), ns)
		}
	}
	said := map[string]bool{}
	for _, w := range s.Workloads("") {
		list := byWorkload[w]
		if len(list) < 2 {
			continue
		}
		for _, o := range list {
			// One pod of each workload is enough.
			if id := o.r.FullName() + " " + labelText(w.Labels); !said[id] {
				said[id] = true
				out.Add(conflict, o.r, o.field, names(list), o.r.Namespace, w.Name)
			}
		}
	}
}

func names(all []selecting) []string {
	var out []string
	for _, o := range all {
		out = append(out, o.r.Name)
	}
	return out
}

// labelText is name=value,… in order.
func labelText(labels map[string]string) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if text != "" {
			text += ","
		}
		text += name + "=" + labels[name]
	}
	return text
}
