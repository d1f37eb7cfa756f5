// Package debian fetches Debian packages with apt and reads them. Nothing of the machine's own apt is changed, and nothing is
// installed: a foreign architecture is as good as the machine's.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/internal/rootfs"
)

// keyring verifies what is fetched.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Package that went into an image.
type Package struct{ Name, Version, Architecture string }

// Source fetches packages of one architecture.
type Source struct {
	arch, dir string
	options   []string
}

// backports is how the names of releases end that have newer versions of some packages of another, and are complete in themselves.
const backports = "-backports"

// Open prepares to fetch packages of a release, or of a release's backports, into dir.
func Open(ctx context.Context, dir, release, arch string) (*Source, error) {
	s := &Source{arch: arch, dir: filepath.Join(dir, release+"-"+arch)}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	sources := fmt.Sprintf("deb [signed-by=%s] http://deb.debian.org/debian %s main\n", keyring, release)
	if !strings.HasSuffix(release, backports) {
		sources += fmt.Sprintf(`deb [signed-by=%[1]s] http://deb.debian.org/debian %[2]s-updates main
deb [signed-by=%[1]s] http://deb.debian.org/debian-security %[2]s-security main
`, keyring, release)
	}
	for name, text := range map[string]string{"sources.list": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	for _, o := range []string{
		"Dir::State::lists=" + filepath.Join(s.dir, "lists"), "Dir::Cache=" + filepath.Join(s.dir, "cache"),
		"Dir::State::status=" + filepath.Join(s.dir, "status"), "Dir::Etc::sourcelist=" + filepath.Join(s.dir, "sources.list"),
		"Dir::Etc::sourceparts=/dev/null", "Dir::Etc::preferencesparts=/dev/null",
		"APT::Architecture=" + arch, "APT::Architectures=" + arch, "APT::Sandbox::User=root",
	} {
		s.options = append(s.options, "-o", o)
	}
	if _, err := s.run(ctx, s.dir, "apt-get", "update", "-qq"); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Source) run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, slices.Concat(s.options, args)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return out, nil
}

// Unpack adds packages with all that they depend on to the tree, and says which they are.
func (s *Source) Unpack(ctx context.Context, tree *rootfs.Tree, packages, without []string) ([]Package, error) {
	names, err := s.closure(ctx, packages, without)
	if err != nil {
		return nil, err
	}
	return s.UnpackOnly(ctx, tree, names...)
}

// UnpackOnly adds packages without what they depend on.
func (s *Source) UnpackOnly(ctx context.Context, tree *rootfs.Tree, names ...string) ([]Package, error) {
	files, err := s.fetch(ctx, names)
	if err != nil {
		return nil, err
	}
	var out []Package
	for _, file := range files {
		p, err := describe(ctx, file)
		if err != nil {
			return nil, err
		}
		if err := unpack(ctx, tree, file); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		out = append(out, p)
	}
	return out, nil
}

// Depends are the packages that a package names as what it depends on.
func (s *Source) Depends(ctx context.Context, name string) ([]string, error) {
	raw, err := s.run(ctx, s.dir, "apt-cache", "depends", "--important", name)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		if _, needed, ok := strings.Cut(strings.TrimSpace(line), "Depends: "); ok {
			out = append(out, needed)
		}
	}
	return out, nil
}

// closure is the packages and what they depend on, in order.
func (s *Source) closure(ctx context.Context, packages, without []string) ([]string, error) {
	raw, err := s.run(ctx, s.dir, "apt-cache", append([]string{
		"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances",
	}, packages...)...)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		// Packages stand at the margin; virtual ones in brackets.
		if line == "" || strings.ContainsAny(line, " <>|:") || slices.Contains(without, line) {
			continue
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// fetch returns the files of packages' current versions, in order of the names.
func (s *Source) fetch(ctx context.Context, names []string) ([]string, error) {
	// Not where the packages are: apt prints nothing for one that is there.
	raw, err := s.run(ctx, s.dir, "apt-get", append([]string{"download", "--print-uris"}, names...)...)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "debs")
	found := map[string]string{} // files by package
	var missing []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line) // 'URI' file size hash
		if len(fields) < 2 {
			return nil, fmt.Errorf("apt-get download --print-uris: unexpected answer %q", line)
		}
		name, _, _ := strings.Cut(fields[1], "_")
		found[name] = filepath.Join(dir, fields[1])
		switch _, err := os.Stat(found[name]); {
		case errors.Is(err, os.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			return nil, err
		}
	}
	if len(missing) > 0 {
		if _, err := s.run(ctx, dir, "apt-get", append([]string{"download", "-qq"}, missing...)...); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, name := range names {
		file, ok := found[name]
		if !ok {
			return nil, fmt.Errorf("debian has no package %s for %s", name, s.arch)
		}
		out = append(out, file)
	}
	return out, nil
}

func describe(ctx context.Context, file string) (Package, error) {
	raw, err := exec.CommandContext(ctx, "dpkg-deb", "--showformat=${Package} ${Version} ${Architecture}", "--show", file).Output()
	if err != nil {
		return Package{}, fmt.Errorf("dpkg-deb --show %s: %w", file, err)
	}
	fields := strings.Fields(string(raw))
	if len(fields) != 3 {
		return Package{}, fmt.Errorf("dpkg-deb --show %s: unexpected answer %q", file, raw)
	}
	return Package{Name: fields[0], Version: fields[1], Architecture: fields[2]}, nil
}

func unpack(ctx context.Context, tree *rootfs.Tree, file string) error {
	archive, err := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file).Output()
	if err != nil {
		return fmt.Errorf("dpkg-deb --fsys-tarfile: %w", err)
	}
	return tree.Unpack(bytes.NewReader(archive), wanted)
}

// wanted leaves out what nobody reads in a container. Licences stay.
func wanted(name string) bool {
	if strings.HasPrefix(name, "/usr/share/doc/") {
		return strings.HasSuffix(name, "/copyright")
	}
	for _, prefix := range []string{"/usr/share/man", "/usr/share/locale", "/usr/share/lintian", "/usr/share/info", "/usr/share/bash-completion", "/usr/share/zsh", "/usr/share/bug"} {
		if name == prefix || strings.HasPrefix(name, prefix+"/") {
			return false
		}
	}
	return !strings.Contains(name, "/gconv") && name != "/usr/share/doc"
}
