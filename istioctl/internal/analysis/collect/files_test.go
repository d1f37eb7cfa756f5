package collect_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/analyzers"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "below/b.json", "notes.txt"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var skipped []string
	files, err := collect.Files([]string{dir, "-"}, strings.NewReader("in"), func(name string) { skipped = append(skipped, name) })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimPrefix(f.Name, dir+"/")+"="+strings.TrimPrefix(string(f.Data), dir))
	}
	if got := strings.Join(names, " "); got != "a.yaml=a.yaml below/b.json=below/b.json -=in" || len(skipped) != 1 {
		t.Errorf("read %s, skipped %v", got, skipped)
	}
	if _, err := collect.Files([]string{filepath.Join(dir, "none")}, nil, nil); err == nil {
		t.Error("a file that is not there is no error")
	}
	if _, err := collect.Files([]string{"-"}, io.MultiReader(bytes.NewReader(make([]byte, 64<<20)), strings.NewReader("more")), nil); err == nil {
		t.Error("a file without end is no error")
	}
}

// TestNamespace: objects that name no namespace are in the one that is given, those that do in theirs.
func TestNamespace(t *testing.T) {
	t.Parallel()
	parsed := collect.Parse(collect.File{Name: "f.yaml", Data: []byte(`
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a}
  spec: {ports: [{port: 80}]}
- apiVersion: v1
  kind: Service
  metadata: {name: b, namespace: own}
  spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: whole}
`)}, "shop", nil)
	var names []string
	for _, r := range parsed.Resources {
		names = append(names, r.String())
	}
	if got := strings.Join(names, ", "); got != "Service shop/a, Service own/b, Namespace whole" {
		t.Errorf("read %s", got)
	}
	if line := parsed.Resources[1].Line("spec.ports[0].port"); line != 12 {
		t.Errorf("line %d", line)
	}
}

// FuzzParse: whatever a file has, reading and analyzing it ends, and lines are in the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: 80\n"))
	f.Add([]byte("kind: List\napiVersion: v1\nitems: [{}, {kind: Pod}]\n---\n--- {}\n"))
	f.Add([]byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, annotations: {galley.istio.io/analyze-suppress: '*'}}\nspec:\n  hosts: [a]\n  http:\n  - route:\n    - destination: {host: b, subset: c}\n"))
	f.Add([]byte("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n"))
	f.Add([]byte(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"r"},"spec":{"parentRefs":[{"name":"g"}],"rules":[{}]}}`))
	f.Add([]byte("a: &a [*a]\nb: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed := collect.Parse(collect.File{Name: "f.yaml", Data: data}, "default", nil)
		in := analysis.Input{Resources: collect.Assumed("istio-system")}
		collect.Overlay(&in, parsed)
		found, err := analysis.Run(t.Context(), analysis.NewSnapshot(in), analyzers.All())
		if err != nil {
			t.Fatal(err)
		}
		last := bytes.Count(data, []byte("\n")) + 1
		for _, m := range found {
			if line := m.Resource.Line(m.Field); line < 1 || line > last {
				t.Errorf("%s: line %d of %d", m, line, last)
			}
		}
	})
}
