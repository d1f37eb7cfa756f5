package analyzers

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// meshLabels looks at the labels that the mesh goes by.
func meshLabels(s *analysis.Snapshot) (out analysis.Messages) {
	for r := range s.Everything() {
		labelValues(&out, r, "metadata.labels.", r.Object.GetLabels())
		switch o := r.Object.(type) {
		case *appsv1.Deployment:
			labelValues(&out, r, "spec.template.metadata.labels.", o.Spec.Template.Labels)
			misplaced(&out, r)
		case *appsv1.StatefulSet, *appsv1.DaemonSet:
			misplaced(&out, r)
		}
	}
	return out
}

// knownValues of a label; none when anything is allowed.
func knownValues(label string) []string {
	switch label {
	case analysis.LabelDataplaneMode:
		return []string{"ambient", "none"}
	case labelWaypointFor:
		return []string{"service", "workload", "all", "none"}
	case "istio.io/ingress-use-waypoint":
		return []string{"true", "false"}
	case "istio.io/waypoint-failure-mode":
		return []string{"Closed", "Open", "Direct-L4"}
	case analysis.LabelInjection:
		return []string{"enabled", "disabled"}
	}
	return nil
}

func labelValues(out *analysis.Messages, r *analysis.Resource, field string, labels map[string]string) {
	for name, value := range labels {
		if known := knownValues(name); known != nil && !slices.Contains(known, value) {
			out.Add(analysis.UnknownLabelValue, r, field+name, name, value, strings.Join(known, ", "))
		}
	}
}

// misplaced reports labels that count on pods but are on what makes them.
func misplaced(out *analysis.Messages, r *analysis.Resource) {
	for name, where := range map[string]string{
		analysis.LabelDataplaneMode: "its pods' template, or on the namespace", analysis.LabelUseWaypoint: "the Service, on its pods' template, or on the namespace",
		analysis.LabelInject: "its pods' template",
	} {
		if _, ok := r.Object.GetLabels()[name]; ok && r.Object.GetLabels()["gateway.istio.io/managed"] == "" {
			out.Add(analysis.MisplacedLabel, r, "metadata.labels."+name, name, r.Kind, where)
		}
	}
}
