package analyzers

import (
	"regexp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// neverReached is a warning of the schema check that has a code of its own.
var neverReached = regexp.MustCompile(`^is never reached: `)

// schemaAnalyzers are one for each kind of the mesh, as elsewhere, and one for the rest.
func schemaAnalyzers() []analysis.Analyzer {
	var out []analysis.Analyzer
	var kinds []string
	for _, k := range kube.Kinds() {
		if !strings.HasSuffix(k.GVK.Group, ".istio.io") && k.GVK.Group != "gateway.networking.k8s.io" {
			continue
		}
		name := "schema.ValidationAnalyzer." + k.GVK.Kind
		if k.GVK.Group == "gateway.networking.k8s.io" && k.GVK.Kind == "Gateway" {
			name = "schema.ValidationAnalyzer.KubernetesGateway"
		}
		if slices.ContainsFunc(out, func(a analysis.Analyzer) bool { return a.Name == name }) {
			continue
		}
		group := k.GVK.Group
		out = append(out, schemaAnalyzer(name, "Runs schema validation as an analyzer on objects of kind "+k.GVK.Kind, func(r *analysis.Resource) bool {
			return r.Kind == k.GVK.Kind && (r.GVK.Group == group || r.GVK.Group == "" && !strings.HasSuffix(name, "KubernetesGateway"))
		}))
		kinds = append(kinds, k.GVK.Kind)
	}
	return append(out, schemaAnalyzer("schema.ValidationAnalyzer.Other", "Runs schema validation as an analyzer on objects of other kinds", func(r *analysis.Resource) bool {
		return !slices.Contains(kinds, r.Kind)
	}))
}

func schemaAnalyzer(name, description string, mine func(*analysis.Resource) bool) analysis.Analyzer {
	return analysis.Analyzer{
		Name: name, Description: description, Codes: []analysis.Code{analysis.SchemaValidationError, analysis.SchemaWarning},
		Run: func(s *analysis.Snapshot) (out analysis.Messages) {
			for _, p := range s.Problems {
				if !mine(p.Resource) || p.Resource.Kind == "VirtualService" && neverReached.MatchString(p.Reason) {
					continue
				}
				text := p.Reason
				if p.Field != "" {
					text = p.Field + ": " + text
				}
				code := analysis.SchemaValidationError
				if p.Warning {
					code = analysis.SchemaWarning
				}
				out.Add(code, p.Resource, p.Field, text)
			}
			return out
		},
	}
}
