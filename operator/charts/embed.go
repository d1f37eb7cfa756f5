// Package charts has the Helm charts of the mesh.
package charts

//go:generate go run ./internal/valuesgen

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

//go:embed all:base all:istiod all:cni all:ztunnel all:gateway all:ambient
var files embed.FS

// FS returns the charts, a directory each.
func FS() fs.FS { return files }

// Names returns the names of the charts, in the order in which they are installed; the last is the umbrella over the others.
func Names() []string { return []string{"base", "istiod", "cni", "ztunnel", "gateway", "ambient"} }

// Load returns the chart called name out of dir, which is FS or a copy of it that somebody changed. The umbrella chart is returned with
// the charts that it depends on.
func Load(dir fs.FS, name string) (*chart.Chart, error) {
	var buffered []*archive.BufferedFile
	add := func(root, prefix string) error {
		return fs.WalkDir(dir, root, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := fs.ReadFile(dir, file)
			if err != nil {
				return err
			}
			buffered = append(buffered, &archive.BufferedFile{Name: path.Join(prefix, file[len(root)+1:]), Data: data})
			return nil
		})
	}
	if err := add(name, ""); err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	if name == "ambient" && !slices.ContainsFunc(buffered, func(f *archive.BufferedFile) bool { return path.Dir(f.Name) == "charts/base" }) {
		for _, part := range []string{"base", "istiod", "cni", "ztunnel"} {
			if err := add(part, "charts/"+part); err != nil {
				return nil, fmt.Errorf("chart %s: %w", name, err)
			}
		}
	}
	c, err := loader.LoadFiles(buffered)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	return c, nil
}
