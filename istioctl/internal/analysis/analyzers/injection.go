package analyzers

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func injectionAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "injection.Analyzer", Description: "Checks conditions related to Istio sidecar injection",
			Codes: []analysis.Code{analysis.NamespaceNotInjected, analysis.PodMissingProxy, analysis.MultipleInjectionLabels},
			Run:   injection,
		},
		{
			Name: "injection.ImageAutoAnalyzer", Description: "Makes sure that Pods and Deployments with `image: auto` are going to be injected",
			Codes: []analysis.Code{analysis.ImageAutoWarning, analysis.ImageAutoError},
			Run:   imageAuto,
		},
	}
}

func injection(s *analysis.Snapshot) (out analysis.Messages) {
	for r, ns := range analysis.All[*corev1.Namespace](s) {
		if s.SystemNamespace(ns.Name) {
			continue
		}
		inMesh := injectionLabels(ns)
		switch {
		case len(inMesh) > 1:
			out.Add(analysis.MultipleInjectionLabels, r, "metadata.labels", inMesh)
		case len(inMesh) == 0 && ns.Labels[analysis.LabelDataplaneMode] == "" && ns.Labels[analysis.LabelInjection] == "":
			out.Add(analysis.NamespaceNotInjected, r, "metadata.name", ns.Name, ns.Name, ns.Name)
		}
	}
	for r, p := range analysis.All[*corev1.Pod](s) {
		ns, _, ok := analysis.Find[*corev1.Namespace](s, "", p.Namespace)
		if !ok || !injected(ns) || s.SystemNamespace(p.Namespace) || !wantsSidecar(p.ObjectMeta.Labels, p.Annotations) || p.Spec.HostNetwork ||
			p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.Annotations[annotationRedirection] == "enabled" || p.Labels[analysis.LabelGatewayName] != "" {
			continue
		}
		isProxy := func(c corev1.Container) bool { return c.Name == "istio-proxy" }
		if !slices.ContainsFunc(p.Spec.Containers, isProxy) && !slices.ContainsFunc(p.Spec.InitContainers, isProxy) {
			out.Add(analysis.PodMissingProxy, r, "metadata.name", r.FullName())
		}
	}
	return out
}

const annotationRedirection = "ambient.istio.io/redirection"

// injectionLabels are those that make a namespace part of the mesh, each in its own way.
func injectionLabels(ns *corev1.Namespace) []string {
	var out []string
	if ns.Labels[analysis.LabelDataplaneMode] == "ambient" && ns.Labels[analysis.LabelInjection] == "enabled" {
		out = append(out, analysis.LabelDataplaneMode)
	}
	if ns.Labels[analysis.LabelInjection] != "" {
		out = append(out, analysis.LabelInjection)
	}
	// Beside the label of the ambient mesh the revision says which control plane's waypoints are meant.
	if ns.Labels[analysis.LabelRevision] != "" && ns.Labels[analysis.LabelDataplaneMode] != "ambient" {
		out = append(out, analysis.LabelRevision)
	}
	return out
}

func injected(ns *corev1.Namespace) bool {
	return ns.Labels[analysis.LabelInjection] == "enabled" || ns.Labels[analysis.LabelInjection] == "" && ns.Labels[analysis.LabelRevision] != "" && ns.Labels[analysis.LabelDataplaneMode] == ""
}

func wantsSidecar(labels, annotations map[string]string) bool {
	value, ok := labels[analysis.LabelInject]
	if !ok {
		value = annotations[analysis.LabelInject]
	}
	return !strings.EqualFold(value, "false")
}

func imageAuto(s *analysis.Snapshot) (out analysis.Messages) {
	will := func(namespace string, labels, annotations map[string]string) bool {
		ns, _, ok := analysis.Find[*corev1.Namespace](s, "", namespace)
		return strings.EqualFold(labels[analysis.LabelInject], "true") || labels[analysis.LabelRevision] != "" || ok && injected(ns) && wantsSidecar(labels, annotations)
	}
	for r, d := range analysis.All[*appsv1.Deployment](s) {
		t := d.Spec.Template
		if i := autoImage(t.Spec); i >= 0 && !will(d.Namespace, t.Labels, t.Annotations) {
			out.Add(analysis.ImageAutoWarning, r, at("spec.template.spec.containers", i)+".image", "Deployment", d.Name)
		}
	}
	for r, p := range analysis.All[*corev1.Pod](s) {
		// Injection would have put a real image there.
		if i := autoImage(p.Spec); i >= 0 {
			out.Add(analysis.ImageAutoError, r, at("spec.containers", i)+".image", "Pod", p.Name)
		}
	}
	return out
}

func autoImage(spec corev1.PodSpec) int {
	return slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == "istio-proxy" && c.Image == "auto" })
}
