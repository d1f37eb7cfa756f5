package charts_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/operator/charts"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

// rights are atoms, as "where: verb resource of group named name".
type rights map[string]bool

func (r rights) add(where string, groups, resources, names, verbs []string) {
	if len(names) == 0 {
		names = []string{"any"}
	}
	for _, group := range groups {
		for _, resource := range resources {
			for _, name := range names {
				for _, verb := range verbs {
					r[fmt.Sprintf("%s: %s %s of %q named %s", where, verb, resource, group, name)] = true
				}
			}
		}
	}
}

// documented reads the rows of a section of docs/security.md, those of options apart. A row's second cell is
// "RESOURCE, … [of GROUP, …] [named NAME, …]", or several of that, separated by semicolons.
func documented(t *testing.T, heading string) (always, options rights) {
	t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n### "+heading)
	if !found {
		t.Fatalf("docs/security.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n### ")
	always, options = rights{}, rights{}
	for line := range strings.SplitSeq(section, "\n") {
		cells := strings.Split(strings.ReplaceAll(line, "`", ""), "|")
		if len(cells) != 6 || strings.TrimSpace(cells[1]) == "where" || strings.HasPrefix(cells[1], "--") {
			continue
		}
		into := always
		if regexp.MustCompile(`\bonly with\b`).MatchString(cells[4]) {
			into = options
		}
		for what := range strings.SplitSeq(cells[2], ";") {
			what, names, _ := strings.Cut(strings.TrimSpace(what), " named ")
			resources, groups, of := strings.Cut(what, " of ")
			if !of {
				groups = ""
			}
			into.add(strings.TrimSpace(cells[1]), words(groups), words(resources), nonEmpty(names), strings.Fields(cells[3]))
		}
	}
	return always, options
}

func words(s string) (out []string) {
	for w := range strings.SplitSeq(s, ",") {
		out = append(out, strings.TrimSpace(w))
	}
	return out
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return words(s)
}

// granted are the rights of the roles that a chart renders and binds.
func granted(t *testing.T, chart string, values map[string]any, where func(kind, name string) string) rights {
	t.Helper()
	objects, err := render.Chart(charts.FS(), chart, "edge", "istio-system", values, "")
	if err != nil {
		t.Fatal(err)
	}
	bound, out := map[string]bool{}, rights{}
	for _, u := range objects {
		if strings.HasSuffix(u.GetKind(), "RoleBinding") {
			var binding rbacv1.RoleBinding // a ClusterRoleBinding has the same reference
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &binding); err != nil {
				t.Fatal(err)
			}
			bound[binding.RoleRef.Kind+"/"+binding.RoleRef.Name] = true
		}
	}
	for _, u := range objects {
		if !strings.HasSuffix(u.GetKind(), "Role") || !bound[u.GetKind()+"/"+u.GetName()] {
			continue
		}
		var role rbacv1.ClusterRole // a Role has the same rules
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			if len(rule.NonResourceURLs) > 0 {
				t.Errorf("chart %s, %s %s: rights on paths are not documented: %v", chart, u.GetKind(), u.GetName(), rule.NonResourceURLs)
			}
			out.add(where(u.GetKind(), u.GetName()), rule.APIGroups, rule.Resources, rule.ResourceNames, rule.Verbs)
		}
	}
	return out
}

func compare(t *testing.T, what string, documented, granted rights) {
	t.Helper()
	for _, r := range slices.Sorted(maps.Keys(granted)) {
		if !documented[r] {
			t.Errorf("%s: granted, and not in docs/security.md: %s", what, r)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(documented)) {
		if !granted[r] {
			t.Errorf("%s: in docs/security.md, and not granted: %s", what, r)
		}
	}
}

func all(a, b rights) rights {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// TestDocumentedRights: docs/security.md lists what the roles of the charts grant, right by right, and nothing else. What a row says to
// be there only with an option is not there without it.
func TestDocumentedRights(t *testing.T) {
	t.Parallel()
	istiod := func(kind, name string) string {
		switch {
		case kind == "Role":
			return "own namespace"
		case strings.HasPrefix(name, "istiod-clusterrole-"):
			return "cluster"
		case strings.HasPrefix(name, "istio-reader-clusterrole-"):
			return "reader"
		}
		return "cluster (" + strings.TrimSuffix(name, "-istio-system") + ")"
	}
	always, options := documented(t, "istiod")
	gateway := rights{}
	for r := range always {
		if strings.HasPrefix(r, "namespaces of gateways:") {
			gateway[r] = true
			delete(always, r)
		}
	}
	readers := func(values map[string]any) (istiodOnly, reader rights) {
		istiodOnly, reader = granted(t, "istiod", values, istiod), rights{}
		for r := range istiodOnly {
			if strings.HasPrefix(r, "reader:") {
				reader[r] = true
				delete(istiodOnly, r)
			}
		}
		return istiodOnly, reader
	}
	plain, reader := readers(nil)
	compare(t, "istiod", always, plain)
	everything, _ := readers(istiodOptions())
	compare(t, "istiod with its options", all(always, options), everything)
	compare(t, "gateway", gateway, granted(t, "gateway", nil, func(string, string) string { return "namespaces of gateways" }))
	for r := range reader {
		if !regexp.MustCompile(`^reader: (get|list|watch) `).MatchString(r) || strings.Contains(r, "secrets") || strings.Contains(r, "configmaps") {
			t.Errorf("control planes of other clusters may do more than docs/security.md says: %s", r)
		}
	}

	always, options = documented(t, "istio-cni")
	cni := func(kind, _ string) string {
		if kind == "Role" {
			return "own namespace"
		}
		return "cluster"
	}
	compare(t, "istio-cni", always, granted(t, "cni", map[string]any{"repair": map[string]any{"enabled": false}}, cni))
	compare(t, "istio-cni with its options", all(always, options),
		granted(t, "cni", map[string]any{"repair": map[string]any{"enabled": true, "deletePods": true, "createEvents": true}}, cni))

	compare(t, "ztunnel", nil, granted(t, "ztunnel", nil, cni))
	compare(t, "gateway without rbac", nil, granted(t, "gateway", map[string]any{"rbac": map[string]any{"enabled": false}}, cni))
}

// istiodOptions turn on everything that grants the control plane more.
func istiodOptions() map[string]any {
	return map[string]any{
		"taint":              map[string]any{"enabled": true},
		"gatewayCredentials": map[string]any{"allNamespaces": true},
		"env":                map[string]any{"ENABLE_CLUSTER_TRUST_BUNDLE_API": true},
	}
}
