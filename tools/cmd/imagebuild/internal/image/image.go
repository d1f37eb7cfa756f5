// Package image builds container images of the project's programs: without a base image, without a registry, and the same
// bytes each time.
package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/sbom"
	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/spec"
	"github.com/isthmus-mesh/isthmus/tools/internal/debian"
	"github.com/isthmus-mesh/isthmus/tools/internal/rootfs"
)

// Config of a build.
type Config struct {
	// Root is the repository, Out where results and what is fetched go.
	Root, Out string
	// Version and Revision are told by the programs and the labels.
	Version, Revision string
	// Created is the time of everything in the images.
	Created time.Time
	// Release of Debian that packages are from.
	Release string
	// Debug adds a shell.
	Debug bool
	Log   *slog.Logger
}

// Builder builds images.
type Builder struct {
	cfg      Config
	spec     *spec.File
	compiled map[string]*buildinfo.BuildInfo
	sources  map[string]*debian.Source
	roots    map[string][]byte
}

// Image that was built, for one architecture.
type Image struct {
	Name, Arch string
	Image      v1.Image
	SBOM       []byte
}

// New returns a builder of what the specification names.
func New(cfg Config, file *spec.File) *Builder {
	return &Builder{cfg: cfg, spec: file, compiled: map[string]*buildinfo.BuildInfo{}, sources: map[string]*debian.Source{}, roots: map[string][]byte{}}
}

// Build makes one image.
func (b *Builder) Build(ctx context.Context, name, arch string) (*Image, error) {
	described := b.spec.Images[name]
	contents := []spec.Content{described.Content}
	if b.cfg.Debug {
		contents = append([]spec.Content{b.spec.Debug}, contents...)
	}
	system, packages, err := b.system(ctx, described.User, contents, arch)
	if err != nil {
		return nil, err
	}
	own := rootfs.New()
	built := map[string]*buildinfo.BuildInfo{}
	for _, c := range contents {
		if err := b.own(ctx, own, c, arch, built); err != nil {
			return nil, err
		}
	}
	bill, err := sbom.Document{
		Image: name, Version: b.cfg.Version, Arch: arch, Created: b.cfg.Created, Binaries: built, Packages: packages,
	}.JSON()
	if err != nil {
		return nil, err
	}
	own.Data("/usr/share/sbom/"+name+".spdx.json", 0o644, bill)
	all := rootfs.New()
	all.Add(system)
	all.Add(own)
	if err := all.CheckLibraries(arch); err != nil {
		return nil, fmt.Errorf("%s for %s: %w", name, arch, err)
	}
	img, err := b.assemble(name, arch, described, []*rootfs.Tree{system, own})
	if err != nil {
		return nil, fmt.Errorf("%s for %s: %w", name, arch, err)
	}
	return &Image{Name: name, Arch: arch, Image: img, SBOM: bill}, nil
}

// system is the layer below the programs.
func (b *Builder) system(ctx context.Context, user string, contents []spec.Content, arch string) (*rootfs.Tree, []debian.Package, error) {
	tree := rootfs.New()
	tree.Merge()
	tree.Dir("/tmp", 0o1777, 0, 0)
	tree.Dir("/root", 0o700, 0, 0)
	tree.Dir("/home/nonroot", 0o755, 65532, 65532)
	for _, dir := range []string{"/var/run", "/proc", "/sys", "/dev"} {
		tree.Dir(dir, 0o755, 0, 0)
	}
	users(tree, user)
	tree.Data("/etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n"))
	tree.Data("/etc/os-release", 0o644, []byte("NAME=\"Isthmus\"\nID=isthmus\nPRETTY_NAME=\"Isthmus "+b.cfg.Version+"\"\n"))
	source, err := b.source(ctx, arch)
	if err != nil {
		return nil, nil, err
	}
	roots, err := b.certificates(ctx, source)
	if err != nil {
		return nil, nil, err
	}
	tree.Data("/etc/ssl/certs/ca-certificates.crt", 0o644, roots)
	var packages, without []string
	for _, c := range contents {
		packages, without = append(packages, c.Packages...), append(without, c.Without...)
	}
	if len(packages) == 0 {
		return tree, nil, nil
	}
	unpacked, err := source.Unpack(ctx, tree, packages, without)
	return tree, unpacked, err
}

// users writes who there is. The image's own user must be there: kubelet takes its group from here, not from the image.
func users(tree *rootfs.Tree, user string) {
	known := [][2]string{{"root", "0:0"}, {"istio-proxy", "1337:1337"}, {"nonroot", "65532:65532"}, {"nobody", "65534:65534"}}
	if !slices.ContainsFunc(known, func(k [2]string) bool { return k[1] == user }) {
		known = append(known, [2]string{"app", user})
	}
	var passwd, group strings.Builder
	for _, k := range known {
		name, ids := k[0], k[1]
		_, gid, _ := strings.Cut(ids, ":")
		home := "/home/nonroot"
		if name == "root" {
			home = "/root"
		}
		fmt.Fprintf(&passwd, "%s:x:%s:%s:%s:/sbin/nologin\n", name, ids, name, home)
		fmt.Fprintf(&group, "%s:x:%s:\n", name, gid)
	}
	tree.Data("/etc/passwd", 0o644, []byte(passwd.String()))
	tree.Data("/etc/group", 0o644, []byte(group.String()))
}

func (b *Builder) source(ctx context.Context, arch string) (*debian.Source, error) {
	if s, ok := b.sources[arch]; ok {
		return s, nil
	}
	s, err := debian.Open(ctx, filepath.Join(b.cfg.Out, "debian"), b.cfg.Release, arch)
	if err == nil {
		b.sources[arch] = s
	}
	return s, err
}

// certificates are the public authorities, as Debian's update-ca-certificates writes them.
func (b *Builder) certificates(ctx context.Context, source *debian.Source) ([]byte, error) {
	if roots, ok := b.roots[""]; ok {
		return roots, nil
	}
	tree := rootfs.New()
	if _, err := source.UnpackOnly(ctx, tree, "ca-certificates"); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, name := range tree.Files() {
		if !strings.HasSuffix(name, ".crt") {
			continue
		}
		data, err := tree.Read(name)
		if err != nil {
			return nil, err
		}
		out.Write(bytes.TrimSpace(data))
		out.WriteByte('\n')
	}
	b.roots[""] = out.Bytes()
	return out.Bytes(), nil
}

// own adds what an image has besides the system.
func (b *Builder) own(ctx context.Context, tree *rootfs.Tree, c spec.Content, arch string, built map[string]*buildinfo.BuildInfo) error {
	for _, binary := range c.Binaries {
		file, info, err := b.compile(ctx, binary, arch)
		if err != nil {
			return err
		}
		built[binary.To] = info
		tree.Program(binary.To, file)
	}
	for name, source := range c.Files {
		if err := tree.Copy(name, filepath.Join(b.cfg.Root, source)); err != nil {
			return err
		}
	}
	for name, target := range c.Links {
		tree.Link(name, target)
	}
	for name, text := range c.Dirs {
		var uid, gid int
		var mode int64
		if _, err := fmt.Sscanf(text, "%d:%d %o", &uid, &gid, &mode); err != nil {
			return fmt.Errorf("directory %s: %q: want \"uid:gid mode\"", name, text)
		}
		tree.Dir(name, mode, uid, gid)
	}
	return nil
}

// assemble makes the image of its layers.
func (b *Builder) assemble(name, arch string, described *spec.Image, trees []*rootfs.Tree) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: b.cfg.Created.UTC()}
	for i, tree := range trees {
		data, err := tree.Tar(b.cfg.Created.UTC())
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
			tarball.WithCompressedCaching, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{
			Created: created, CreatedBy: "imagebuild: " + []string{"system", "programs"}[min(i, 1)],
		}})
		if err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Created, file.OS, file.Architecture = created, "linux", arch
	if arch == "arm64" {
		file.Variant = "v8"
	}
	file.Config = v1.Config{
		User: described.User, Entrypoint: described.Entrypoint, Cmd: described.Cmd, WorkingDir: described.Workdir,
		Env:    append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}, described.Env...),
		Labels: b.labels(name, described), ExposedPorts: ports(described.Ports),
	}
	return mutate.ConfigFile(img, file)
}

func ports(list []string) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	out := map[string]struct{}{}
	for _, p := range list {
		if _, err := strconv.Atoi(p); err == nil {
			p += "/tcp"
		}
		out[p] = struct{}{}
	}
	return out
}

func (b *Builder) labels(name string, described *spec.Image) map[string]string {
	out := maps.Clone(b.spec.Labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, map[string]string{
		"org.opencontainers.image.title":       name,
		"org.opencontainers.image.description": described.Title,
		"org.opencontainers.image.version":     b.cfg.Version,
		"org.opencontainers.image.revision":    b.cfg.Revision,
		"org.opencontainers.image.created":     b.cfg.Created.UTC().Format(time.RFC3339),
	})
	return out
}

// Index joins the architectures of an image.
func Index(images []*Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, i := range slices.SortedFunc(slices.Values(images), func(a, b *Image) int { return strings.Compare(a.Arch, b.Arch) }) {
		platform := &v1.Platform{OS: "linux", Architecture: i.Arch}
		if i.Arch == "arm64" {
			platform.Variant = "v8"
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: i.Image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index
}
