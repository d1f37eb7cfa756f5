// Package collect reads what is analyzed: the objects of files, and those of a mesh.
package collect

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/lines"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// maxFile bounds what is read of one file.
const maxFile = 64 << 20

// File is one that was named, or found in a directory that was.
type File struct {
	Name string
	Data []byte
}

// Extensions of the files that are read in directories.
func Extensions() []string { return []string{".json", ".yaml", ".yml"} }

// Files reads files, the standard input for -, and all manifests below directories. skipped is told of files that are none.
func Files(names []string, stdin io.Reader, skipped func(name string)) ([]File, error) {
	var out []File
	for _, name := range names {
		if name == "-" {
			data, err := readAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("read the standard input: %w", err)
			}
			out = append(out, File{name, data})
			continue
		}
		err := filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir():
				return nil
			case !slices.Contains(Extensions(), filepath.Ext(path)):
				skipped(path)
				return nil
			}
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			data, err := readAll(file)
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			out = append(out, File{path, data})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	return data, err
}

// Parsed is what a file has.
type Parsed struct {
	Resources []*analysis.Resource
	// Problems are about objects, Broken about what is none.
	Problems []analysis.Problem
	Broken   []kube.ObjectError
}

// Parse reads the objects of a file. Those that name no namespace are in the given one. check looks at those with which nothing else is
// wrong; nil is not at all.
func Parse(file File, namespace string, check func(kube.Decoded) []kube.ObjectError) Parsed {
	p := parser{name: file.Name, lines: lines.Read(file.Data), namespace: namespace, check: check, clusterWide: map[string]bool{}}
	for _, k := range kube.Kinds() {
		p.clusterWide[k.GVK.Kind] = k.ClusterWide
	}
	decoded, errs := kube.Decode(file.Name, file.Data)
	for _, d := range decoded {
		p.object(d)
	}
	for _, e := range errs {
		p.failed(e)
	}
	return p.Parsed
}

type parser struct {
	Parsed
	name, namespace string
	lines           *lines.File
	clusterWide     map[string]bool
	check           func(kube.Decoded) []kube.ObjectError
}

func (p *parser) object(d kube.Decoded) {
	prefix := p.lines.Item(d.Line, d.GVK.Kind, d.Object.GetNamespace(), d.Object.GetName())
	if _, named := p.lines.Value(d.Line, prefix+"metadata.namespace"); !named && p.namespace != "" && !p.clusterWide[d.GVK.Kind] {
		d.Object.SetNamespace(p.namespace)
	}
	r := analysis.NewResource(d.GVK, d.Object).InFile(p.name, p.line(d.Line, prefix))
	p.Resources = append(p.Resources, r)
	found := kube.Admit(d.Object)
	if p.check != nil && !slices.ContainsFunc(found, func(e kube.ObjectError) bool { return !e.Warning }) {
		found = append(found, p.check(d)...)
	}
	for _, e := range found {
		p.Problems = append(p.Problems, analysis.Problem{Resource: r, ObjectError: e})
	}
}

// line returns how lines of fields are found.
func (p *parser) line(document int, prefix string) func(string) int {
	return func(field string) int {
		if field == "" {
			field = "metadata.name"
		}
		return max(p.lines.Line(document, prefix+field), 1)
	}
}

// failed sorts out what is wrong with the file's objects, what is no object, and what is none of the mesh's business.
func (p *parser) failed(e kube.ObjectError) {
	if e.Kind == "" {
		p.Broken = append(p.Broken, e)
		return
	}
	version, _ := p.lines.Value(e.Line, "apiVersion")
	group, _, _ := strings.Cut(version, "/")
	if e.Warning && !ofMesh(group) {
		return
	}
	if e.Namespace == "" && !p.clusterWide[e.Kind] {
		e.Namespace = p.namespace
	}
	r := &analysis.Resource{Kind: e.Kind, Namespace: e.Namespace, Name: e.Name}
	p.Problems = append(p.Problems, analysis.Problem{Resource: r.InFile(p.name, p.line(e.Line, "")), ObjectError: e})
}

// ofMesh tells whether the mesh should know the kinds of a group.
func ofMesh(group string) bool {
	return group == "gateway.networking.k8s.io" || strings.HasSuffix(group, ".istio.io") && group != "install.istio.io"
}
