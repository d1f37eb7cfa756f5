// Package spec reads docker/images.yaml, which says what is in each image.
package spec

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// File is docker/images.yaml.
type File struct {
	// Labels are those of every image.
	Labels map[string]string `json:"labels"`
	// Debug is what VARIANT=debug adds to every image.
	Debug Content `json:"debug"`
	// Images by name.
	Images map[string]*Image `json:"images"`
}

// Image is one image.
type Image struct {
	Content `json:",inline"`
	// Title becomes org.opencontainers.image.title's companion, the description.
	Title string `json:"title"`
	// User is uid:gid.
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd"`
	Env        []string `json:"env"`
	Workdir    string   `json:"workdir"`
	// Ports are documentation, as EXPOSE is.
	Ports []string `json:"ports"`
	// Aliases are further names in the tarballs, for clusters that are loaded from them and have no registry. They are never
	// pushed.
	Aliases []string `json:"aliases"`
}

// Content is what goes into a file system.
type Content struct {
	Binaries []Binary `json:"binaries"`
	// Packages are Debian packages; what they depend on comes along, except for Without.
	Packages []string `json:"packages"`
	Without  []string `json:"without"`
	// Links are symbolic links: path to target.
	Links map[string]string `json:"links"`
	// Files are copied from the repository: path in the image to path in the repository, a file or a directory.
	Files map[string]string `json:"files"`
	// Dirs are empty directories: path to "uid:gid mode".
	Dirs map[string]string `json:"dirs"`
}

// Binary is one program.
type Binary struct {
	// Package is a Go import path, or a path in the repository that begins with "./".
	Package string `json:"package"`
	// Module is the directory of a module outside the workspace; empty: the workspace.
	Module string `json:"module"`
	// To is its path in the image.
	To string `json:"to"`
}

// Read reads and checks the file.
func Read(name string) (*File, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var f File
	if err := yaml.UnmarshalStrict(raw, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var problems []error
	programs := map[string]string{} // packages by the name of their program
	for _, image := range f.Names() {
		i := f.Images[image]
		if err := i.check(); err != nil {
			problems = append(problems, fmt.Errorf("%s: image %s: %w", name, image, err))
		}
		for _, b := range i.Binaries {
			program := path.Base(b.To)
			if other, ok := programs[program]; ok && other != b.Package {
				problems = append(problems, fmt.Errorf("%s: both %s and %s are called %s", name, other, b.Package, program))
			}
			programs[program] = b.Package
		}
	}
	return &f, errors.Join(problems...)
}

func (i *Image) check() error {
	var problems []error
	if len(i.Entrypoint) == 0 {
		problems = append(problems, errors.New("no entrypoint"))
	}
	if uid, gid, ok := strings.Cut(i.User, ":"); !ok || uid == "" || gid == "" {
		problems = append(problems, fmt.Errorf("user %q: want uid:gid", i.User))
	}
	for _, b := range i.Binaries {
		if !path.IsAbs(b.To) || b.Package == "" {
			problems = append(problems, fmt.Errorf("binary %+v: want a package and an absolute path", b))
		}
	}
	return errors.Join(problems...)
}

// Names are those of all images, in order.
func (f *File) Names() []string {
	names := make([]string, 0, len(f.Images))
	for name := range f.Images {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Select returns the images of the given names in order; without names, all. A name may end in "*".
func (f *File) Select(names []string) ([]string, error) {
	if len(names) == 0 {
		return f.Names(), nil
	}
	var out []string
	for _, want := range names {
		prefix, wild := strings.CutSuffix(want, "*")
		found := false
		for _, name := range f.Names() {
			if name == want || wild && strings.HasPrefix(name, prefix) {
				found = true
				out = append(out, name)
			}
		}
		if !found {
			return nil, fmt.Errorf("no image %q; there are %s", want, strings.Join(f.Names(), ", "))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
