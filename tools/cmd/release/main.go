// Command release writes what people download: for each architecture of Linux an archive with the command line, charts, profiles,
// samples and completions, and the command line alone for every platform. `make release` calls it.
package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/tools/internal/rootfs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// options of one call.
type options struct {
	root, out, version, revision, hub, tag string
	epoch                                  int64
	platforms                              []string
}

// at is the time of everything in the archives.
func (o options) at() time.Time { return time.Unix(o.epoch, 0).UTC() }

func run(ctx context.Context, args []string) error {
	var o options
	var platforms string
	f := flag.NewFlagSet("release", flag.ContinueOnError)
	f.StringVar(&o.root, "root", ".", "the repository")
	f.StringVar(&o.out, "out", "out/release", "where the archives go")
	f.StringVar(&o.version, "version", "dev", "version of the release")
	f.StringVar(&o.revision, "revision", "unknown", "commit of the release")
	f.StringVar(&o.hub, "hub", "docker.io/isthmus", "registry and path of its images")
	f.StringVar(&o.tag, "tag", "", "tag of its images (default: the version)")
	f.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64,linux/armv7,darwin/amd64,darwin/arm64,windows/amd64", "platforms of the command line")
	f.Int64Var(&o.epoch, "epoch", 0, "time of everything in the archives, in seconds since 1970")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.platforms = strings.Split(platforms, ",")
	if o.tag == "" {
		o.tag = o.version
	}
	if err := os.MkdirAll(filepath.Join(o.out, "bin"), 0o755); err != nil {
		return err
	}
	common, err := o.common(ctx)
	if err != nil {
		return err
	}
	var problems []error // one platform's do not keep the others from being built
	for _, p := range o.platforms {
		if err := o.platform(ctx, p, common); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// platform writes the archives of one.
func (o options) platform(ctx context.Context, platform string, common *rootfs.Tree) error {
	program, err := o.istioctl(ctx, platform)
	if err != nil {
		return err
	}
	goos, arch, _ := strings.Cut(platform, "/")
	name := map[string]string{"darwin/amd64": "osx", "darwin/arm64": "osx-arm64", "windows/amd64": "win"}[platform]
	if name == "" {
		name = goos + "-" + arch
	}
	alone := rootfs.New()
	alone.Program(filepath.Base(program), program)
	if goos == "windows" {
		return o.zip("istioctl-"+o.version+"-"+name+".zip", program)
	}
	if err := o.archive("istioctl-"+o.version+"-"+name+".tar.gz", alone); err != nil {
		return err
	}
	if goos != "linux" {
		return nil
	}
	whole := rootfs.New()
	whole.Add(common)
	whole.Program(o.dir("bin/istioctl"), program)
	return o.archive("isthmus-"+o.version+"-"+name+".tar.gz", whole)
}

// dir is a path in the archive.
func (o options) dir(name string) string { return "/isthmus-" + o.version + "/" + name }

// istioctl builds the command line for a platform.
func (o options) istioctl(ctx context.Context, platform string) (string, error) {
	goos, arch, _ := strings.Cut(platform, "/")
	env := append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch)
	if arch == "armv7" {
		env = append(env, "GOARCH=arm", "GOARM=7")
	}
	out, err := filepath.Abs(filepath.Join(o.out, "bin", goos+"-"+arch, "istioctl"))
	if err != nil {
		return "", err
	}
	if goos == "windows" {
		out += ".exe"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags",
		fmt.Sprintf("-s -w -buildid= -X main.version=%s -X main.revision=%s", o.version, o.revision), "-o", out, "./istioctl/cmd/istioctl")
	cmd.Dir, cmd.Env = o.root, env
	if problem, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("istioctl for %s: %w\n%s", platform, err, strings.TrimSpace(string(problem)))
	}
	return out, nil
}

// common is what the archives of all architectures share.
func (o options) common(ctx context.Context) (*rootfs.Tree, error) {
	tree := rootfs.New()
	for name, source := range map[string]string{
		"LICENSE": "LICENSE", "README.md": "README.md", "manifests/charts": "operator/charts", "manifests/profiles": "operator/iop/profiles",
		"manifests/crds": "operator/crds", "manifests/operator": "operator/deploy", "samples": "samples",
	} {
		if err := o.add(tree, name, source); err != nil {
			return nil, err
		}
	}
	manifest, err := yaml.Marshal(map[string]any{
		"version": o.version, "revision": o.revision, "docker": o.hub, "tag": o.tag, "architectures": []string{"amd64", "arm64"},
		"images": []string{"pilot", "ztunnel", "proxyv2", "install-cni", "istioctl", "operator"},
	})
	if err != nil {
		return nil, err
	}
	tree.Data(o.dir("manifest.yaml"), 0o644, manifest)
	program, err := o.istioctl(ctx, "linux/"+runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	for shell, name := range map[string]string{"bash": "istioctl.bash", "zsh": "_istioctl", "fish": "istioctl.fish"} {
		text, err := exec.CommandContext(ctx, program, "completion", shell).Output()
		if err != nil {
			return nil, fmt.Errorf("istioctl completion %s: %w", shell, err)
		}
		tree.Data(o.dir("tools/"+name), 0o644, text)
	}
	return tree, nil
}

// add copies what is not source code.
func (o options) add(tree *rootfs.Tree, name, source string) error {
	from := filepath.Join(o.root, source)
	return filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if slices.Contains([]string{"internal", "cmd", "testdata"}, base) {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(base, ".go") || base == "go.mod" || base == "go.sum" {
			return nil
		}
		relative, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		return tree.Copy(o.dir(path.Join(name, filepath.ToSlash(relative))), file)
	})
}

// archive writes a .tar.gz and its checksum.
func (o options) archive(name string, tree *rootfs.Tree) error {
	data, err := tree.Tar(o.at())
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return o.write(name, out.Bytes())
}

func (o options) zip(name, program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	file, err := w.CreateHeader(&zip.FileHeader{Name: filepath.Base(program), Method: zip.Deflate, Modified: o.at()})
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, bytes.NewReader(data)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return o.write(name, out.Bytes())
}

func (o options) write(name string, data []byte) error {
	file := filepath.Join(o.out, name)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)
	if err := os.WriteFile(file+".sha256", []byte(sum), 0o644); err != nil {
		return err
	}
	fmt.Printf("%s\t%d bytes\n", file, len(data))
	return nil
}
