package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "github.com/isthmus-mesh/isthmus/"

// listed is the part of `go list -json` that the rules look at.
type listed struct {
	ImportPath   string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

// rule forbids the packages below From to know the packages below To, except for what Allow names.
type rule struct {
	from, to string
	allow    []string
	// deep also forbids it through other packages.
	deep bool
	why  string
}

var components = []string{"pilot", "ztunnel", "waypoint", "cni", "istioctl", "operator", "sandbox"}

func rules() []rule {
	out := []rule{
		{from: "pkg/", to: "k8s.io/", allow: []string{"pkg/kube"}, deep: true, why: "the data plane's dependencies stay free of Kubernetes"},
		{from: "ztunnel/", to: "k8s.io/", deep: true, why: "the data plane must not link Kubernetes"},
		{from: "waypoint/", to: "k8s.io/", deep: true, why: "the data plane must not link Kubernetes"},
		{from: "cni/cmd/istio-cni", to: "k8s.io/", deep: true, why: "the plugin is run for every pod and must stay small"},
	}
	for _, component := range components {
		out = append(out, rule{from: "pkg/", to: root + component + "/", deep: true, why: "shared libraries import no component"})
	}
	// Exported by a component: its pure core and app; everything else of it is its own.
	exported := map[string][]string{
		"pilot":    {"pilot/app", "pilot/translate", "pilot/simulate"},
		"ztunnel":  {"ztunnel/app", "ztunnel/l4"},
		"waypoint": {"waypoint/app", "waypoint/l7"},
		"cni":      {"cni/app", "cni/redirect"},
	}
	for owner, allowed := range exported {
		for _, user := range []string{"istioctl/", "sandbox/", "tests/e2e/", "tools/"} {
			out = append(out, rule{from: user, to: root + owner + "/", allow: allowed, why: "a component exports its pure core and app only"})
		}
		for _, other := range components {
			if other != owner && other != "istioctl" && other != "sandbox" {
				out = append(out, rule{from: other + "/", to: root + owner + "/", why: "components meet only on the wire"})
			}
		}
	}
	// Of these, istioctl alone imports the other two.
	for _, component := range components {
		for _, program := range []string{"istioctl", "operator", "sandbox"} {
			if component != program && component != "istioctl" {
				out = append(out, rule{from: component + "/", to: root + program + "/", why: "only istioctl installs and runs the sandbox"})
			}
		}
	}
	return out
}

func TestImportRules(t *testing.T) {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var packages []listed
	for _, module := range modules(t, top) {
		packages = append(packages, list(t, filepath.Join(top, module))...)
	}
	if len(packages) < 20 {
		t.Fatalf("only %d packages found", len(packages))
	}
	for _, r := range rules() {
		for _, p := range packages {
			check(t, r, p)
		}
	}
	for _, p := range packages {
		if slices.Contains(p.Imports, root+"pkg/testkit") && !below(p.ImportPath, root+"tools") { // which users never run
			t.Errorf("%s imports pkg/testkit outside of tests and tools", p.ImportPath)
		}
	}
}

func check(t *testing.T, r rule, p listed) {
	t.Helper()
	if !strings.HasPrefix(p.ImportPath+"/", root+r.from) && !strings.HasPrefix(p.ImportPath, root+r.from) {
		return
	}
	for _, allowed := range r.allow {
		if below(p.ImportPath, root+allowed) {
			return
		}
	}
	known := p.Imports
	if r.deep {
		known = p.Deps
	}
	for _, dep := range known {
		forbidden := strings.HasPrefix(dep, r.to) && !slices.ContainsFunc(r.allow, func(a string) bool { return below(dep, root+a) })
		if forbidden {
			t.Errorf("%s knows %s: %s", p.ImportPath, dep, r.why)
		}
	}
}

func below(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// modules are the folders that go.work uses.
func modules(t *testing.T, top string) []string {
	t.Helper()
	work, err := os.ReadFile(filepath.Join(top, "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(work)) {
		if folder, ok := strings.CutPrefix(strings.TrimSpace(line), "./"); ok {
			out = append(out, folder)
		}
	}
	return out
}

func list(t *testing.T, folder string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = folder
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out []listed
	for decoder := json.NewDecoder(stdout); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list in %s: %v", folder, err)
		}
		out = append(out, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list in %s: %v", folder, err)
	}
	return out
}
