package analyzers_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

// TestSamples: nothing is found in Bookinfo, nor in any other sample once it is applied to a namespace with Bookinfo and a waypoint.
func TestSamples(t *testing.T) {
	t.Parallel()
	const root = "../../../../samples"
	read := func(name string) collect.File {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return collect.File{Name: name, Data: data}
	}
	namespace := collect.File{Name: "namespace.yaml", Data: []byte("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels:\n    istio.io/dataplane-mode: ambient\n    istio.io/use-waypoint: waypoint\n")}
	resolver := collect.File{Name: "resolver.yaml", Data: []byte("apiVersion: v1\nkind: Service\nmetadata:\n  name: cert-manager-resolver\n  namespace: istio-system\nspec:\n  ports:\n  - name: http\n    port: 8089\n")}
	base := []collect.File{
		namespace, read("bookinfo/platform/kube/bookinfo.yaml"), read("bookinfo/platform/kube/bookinfo-versions.yaml"),
		read("bookinfo/gateway-api/waypoint.yaml"), read("curl/curl.yaml"),
	}
	routed := slices.Concat(base, []collect.File{read("bookinfo/networking/destination-rule-all.yaml"), resolver})
	seen := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		seen++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := lines(analyze(t, input(t, false, collect.File{Name: name, Data: read(name).Data}))); strings.Contains(got, "IST0106") {
				t.Errorf("alone:\n%s", got)
			}
			files := base
			if strings.HasPrefix(name, "bookinfo/networking/") {
				files = routed
			}
			if got := lines(analyze(t, input(t, false, slices.Concat(files, []collect.File{read(name)})...))); got != "" {
				t.Errorf("found\n%s", got)
			}
		})
		return nil
	})
	if err != nil || seen < 20 {
		t.Fatal(seen, err)
	}
	if got := lines(analyze(t, input(t, false, base[1:]...))); got != "" {
		t.Errorf("Bookinfo: found\n%s", got)
	}
}
