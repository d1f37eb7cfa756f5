package analyzers

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"istio.io/api/annotation"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func annotationAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{{
		Name: "annotations.K8sAnalyzer", Description: "Checks for misplaced and invalid Istio annotations in Kubernetes resources",
		Codes: []analysis.Code{analysis.MisplacedAnnotation, analysis.UnknownAnnotation, analysis.InvalidAnnotation, analysis.DeprecatedAnnotation},
		Run:   annotations,
	}}
}

func annotations(s *analysis.Snapshot) (out analysis.Messages) {
	known := map[string]*annotation.Instance{}
	for _, a := range annotation.AllResourceAnnotations() {
		known[a.Name] = a
	}
	for r := range s.Everything() {
		// What the mesh installs itself is not the user's to change.
		if r.Namespace == s.IstioNamespace && r.Live() {
			continue
		}
		check(&out, known, r, r.Kind, "metadata.annotations.", r.Object.GetAnnotations())
		if d, ok := r.Object.(*appsv1.Deployment); ok {
			check(&out, known, r, "Pod", "spec.template.metadata.annotations.", d.Spec.Template.Annotations)
		}
	}
	return out
}

// own are annotations that are read here and that the list of Istio's API does not have.
func own(name string) bool {
	switch name {
	case "galley.istio.io/analyze-suppress", "ambient.istio.io/waypoint-inbound-binding", "gateway.istio.io/controller-version", "istio.io/autoRegistrationController",
		"ambient.istio.io/redirection", "sidecar.istio.io/status", "istio.io/workloadController", "istio.io/connectedAt", "istio.io/disconnectedAt":
		return true
	}
	return false
}

func check(out *analysis.Messages, known map[string]*annotation.Instance, r *analysis.Resource, kind, field string, texts map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		domain, _, _ := strings.Cut(name, "/")
		if domain != "istio.io" && !strings.HasSuffix(domain, ".istio.io") || strings.HasPrefix(domain, "install.") || domain == "operator.istio.io" || own(name) {
			continue
		}
		a := known[name]
		if a == nil {
			out.Add(analysis.UnknownAnnotation, r, field+name, name)
			continue
		}
		if a.Deprecated {
			out.Add(analysis.DeprecatedAnnotation, r, field+name, name, "")
		}
		if where := places(a); !slices.Contains(where, "Any") && !slices.Contains(where, kind) {
			out.Add(analysis.MisplacedAnnotation, r, field+name, name, strings.Join(where, ", "))
			continue
		}
		if problem := wrongValue(name, texts[name]); problem != "" {
			out.Add(analysis.InvalidAnnotation, r, field+name, name, problem)
		}
	}
}

func places(a *annotation.Instance) []string {
	var out []string
	for _, kind := range a.Resources {
		out = append(out, kind.String())
	}
	return out
}

// wrongValue says what is wrong with the value of an annotation whose values are known.
func wrongValue(name, value string) string {
	if value == "" {
		return ""
	}
	_, short, _ := strings.Cut(name, "/")
	oneOf := func(values ...string) string {
		if slices.Contains(values, value) {
			return ""
		}
		return strconv.Quote(value) + " is none of " + strings.Join(values, ", ")
	}
	switch {
	case name == "sidecar.istio.io/inject", name == "prometheus.istio.io/merge-metrics", name == "sidecar.istio.io/rewriteAppHTTPProbers", name == "sidecar.istio.io/nativeSidecar",
		name == "istio.io/dry-run", name == "ambient.istio.io/bypass-inbound-capture", name == "ambient.istio.io/dns-capture", name == "sidecar.istio.io/enableCoreDump":
		return oneOf("true", "false")
	case name == "sidecar.istio.io/interceptionMode":
		return oneOf("REDIRECT", "TPROXY", "NONE")
	case name == "networking.istio.io/traffic-distribution":
		return oneOf("PreferClose", "PreferSameZone", "PreferSameNode", "Any")
	case name == "ambient.istio.io/redirection":
		return oneOf("enabled", "pending")
	case strings.HasPrefix(short, "proxyCPU"), strings.HasPrefix(short, "proxyMemory"):
		if _, err := resource.ParseQuantity(value); err != nil {
			return strconv.Quote(value) + " is not a quantity such as 100m or 128Mi"
		}
	case strings.HasSuffix(short, "boundPorts"):
		return wrongPorts(value)
	case strings.HasSuffix(short, "OutboundIPRanges"):
		return wrongBlocks(value)
	}
	return ""
}

func wrongPorts(list string) string {
	for port := range strings.SplitSeq(list, ",") {
		if port = strings.TrimSpace(port); port == "*" {
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return strconv.Quote(port) + " is not a port"
		}
	}
	return ""
}

func wrongBlocks(list string) string {
	for block := range strings.SplitSeq(list, ",") {
		if block = strings.TrimSpace(block); block == "*" {
			continue
		}
		if _, err := netip.ParsePrefix(block); err != nil {
			return strconv.Quote(block) + " is not a CIDR block such as 10.0.0.0/8"
		}
	}
	return ""
}
