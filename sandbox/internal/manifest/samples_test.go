package manifest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

// Every sample is whole: what reads it for the sandbox and what reads it for the mesh agree.
func TestSamples(t *testing.T) {
	const root = "../../../samples"
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		seen++
		t.Run(strings.TrimPrefix(path, root+"/"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			objects, problems := manifest.Decode(path, data)
			if len(problems) > 0 || len(objects) == 0 {
				t.Errorf("%d objects, %v", len(objects), problems)
			}
			decoded, errs := kube.Decode(path, data)
			for _, e := range errs {
				t.Error(e)
			}
			if len(decoded) != len(objects) {
				t.Errorf("%d objects for the mesh, %d for the sandbox", len(decoded), len(objects))
			}
			for _, o := range decoded {
				for _, e := range kube.Validate(o.Object) {
					t.Error(e)
				}
			}
		})
		return nil
	})
	if err != nil || seen < 30 {
		t.Errorf("%d samples, %v", seen, err)
	}
}
