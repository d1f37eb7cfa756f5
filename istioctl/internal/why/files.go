package why

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/lines"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// ReadFiles reads manifests: files, directories of them, or the standard input for -. Of an object that several have the first counts.
func ReadFiles(paths []string, stdin io.Reader) (*World, error) {
	w := NewWorld()
	w.Files = true
	return w, w.Add(paths, stdin)
}

// Add reads more manifests.
func (w *World) Add(paths []string, stdin io.Reader) error {
	for _, path := range paths {
		if path == "-" {
			data, err := io.ReadAll(stdin)
			if err != nil {
				return fmt.Errorf("read the standard input: %w", err)
			}
			w.manifest("-", data)
			continue
		}
		if err := w.tree(path); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) tree(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return w.file(path)
	}
	found := false
	err = filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(e.Name(), ".") && name != path
		switch {
		case e.IsDir() && hidden:
			return filepath.SkipDir
		case e.IsDir() || hidden || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			return nil
		}
		found = true
		return w.file(name)
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: no manifests (.yaml, .yml or .json) are in this directory", path)
	}
	return err
}

func (w *World) file(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	w.manifest(path, data)
	return nil
}

// manifest reads one file. What cannot be read becomes a note.
func (w *World) manifest(file string, data []byte) {
	w.files[file] = lines.Read(data)
	objects, problems := kube.Decode(file, data)
	for _, d := range objects {
		w.put(d.Object, kindOf(d.Object), d.File, d.Line)
		w.Objects = append(w.Objects, d.Object)
		for _, p := range kube.Admit(d.Object) {
			if !p.Warning {
				at := w.Of(d.Object, p.Field)
				p.File, p.Line = at.File, at.Line
				w.Notes = append(w.Notes, "a cluster would refuse to store it: "+p.Error())
			}
		}
		if c, ok := d.Object.(*corev1.ConfigMap); ok && c.Name == "istio" && c.Data["mesh"] != "" {
			w.MeshConfig = []byte(c.Data["mesh"])
		}
	}
	var policies []kube.ObjectError
	for _, p := range problems {
		switch {
		case p.Warning && p.Kind == "NetworkPolicy":
			policies = append(policies, p)
		case !p.Warning:
			w.Notes = append(w.Notes, "left out: "+p.Error())
		}
	}
	if len(policies) > 0 {
		w.networkPolicies(file, data, policies)
	}
}

// networkPolicies reads those of a file. The mesh does not read them, but the network obeys them.
func (w *World) networkPolicies(file string, data []byte, at []kube.ObjectError) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := reader.Read()
		if err != nil {
			return // the end, or what Decode has told of
		}
		var p networkingv1.NetworkPolicy
		if yaml.Unmarshal(doc, &p) != nil || p.Kind != "NetworkPolicy" {
			continue
		}
		for _, e := range at {
			if e.Name == p.Name && (e.Namespace == p.Namespace || p.Namespace == "") {
				if p.Namespace == "" {
					p.Namespace = "default"
				}
				w.put(&p, "NetworkPolicy", file, e.Line)
				break
			}
		}
		w.NetworkPolicies = append(w.NetworkPolicies, &p)
	}
}
