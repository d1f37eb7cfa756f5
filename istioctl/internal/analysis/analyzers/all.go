// Package analyzers has what looks for mistakes: each file one family of them.
package analyzers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// All returns all analyzers, by name.
func All() []analysis.Analyzer {
	out := slices.Concat(
		schemaAnalyzers(), injectionAnalyzers(), serviceAnalyzers(), deploymentAnalyzers(), annotationAnalyzers(),
		virtualServiceAnalyzers(), destinationRuleAnalyzers(), serviceEntryAnalyzers(), sidecarAnalyzers(), telemetryAnalyzers(),
		gatewayAnalyzers(), gatewayAPIAnalyzers(), policyAnalyzers(), statusAnalyzers(), ambientAnalyzers(), servedAnalyzers(),
	)
	slices.SortFunc(out, func(a, b analysis.Analyzer) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Named returns the analyzers of the names; of no names it is all.
func Named(names []string) ([]analysis.Analyzer, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	var out []analysis.Analyzer
	for _, name := range names {
		i := slices.IndexFunc(all, func(a analysis.Analyzer) bool { return a.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no analyzer %q%s; --list-analyzers lists all", name, similar(name, all))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// similar is the analyzer that may have been meant.
func similar(name string, all []analysis.Analyzer) string {
	_, last, found := strings.Cut(name, ".")
	if !found {
		last = name
	}
	for _, a := range all {
		if last != "" && strings.Contains(strings.ToLower(a.Name), strings.ToLower(strings.TrimSuffix(last, "Analyzer"))) {
			return fmt.Sprintf(", did you mean %q?", a.Name)
		}
	}
	return ""
}

// at is the path of an item of a list.
func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
