// Command imagebuild builds the container images of docker/images.yaml for several architectures, without Docker and without
// a base image: as OCI layouts, as tarballs for `docker load`, and to a registry. `make docker` calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/image"
	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/spec"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imagebuild:", err)
		os.Exit(1)
	}
}

// options of one call.
type options struct {
	root, out, specFile, hub, tag, version, revision, variant, release string
	archs                                                              []string
	epoch                                                              int64
	push, save, list, dockerfiles                                      bool
	names                                                              []string
}

func parse(args []string) (options, error) {
	var o options
	var archs string
	f := flag.NewFlagSet("imagebuild", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "imagebuild [flags] [image...]: without images, all. An image's name may end in *.\n")
		f.PrintDefaults()
	}
	f.StringVar(&o.root, "root", ".", "the repository")
	f.StringVar(&o.out, "out", "out/images", "where results go, below the repository unless absolute")
	f.StringVar(&o.specFile, "spec", "docker/images.yaml", "what is in each image")
	f.StringVar(&o.hub, "hub", "docker.io/isthmus", "registry and path of the images; several, comma-separated")
	f.StringVar(&o.tag, "tag", "dev", "tag of the images; several, comma-separated")
	f.StringVar(&o.version, "version", "", "version that the programs tell (default: the first tag)")
	f.StringVar(&o.revision, "revision", "unknown", "commit that the programs tell")
	f.StringVar(&o.variant, "variant", "", "variants, comma-separated: empty or distroless; debug adds a shell, and -debug to the tags")
	f.StringVar(&o.release, "debian", "bookworm", "release of Debian that packages are from")
	f.StringVar(&archs, "arch", "amd64,arm64", "architectures")
	f.Int64Var(&o.epoch, "epoch", 0, "time of everything in the images, in seconds since 1970 (SOURCE_DATE_EPOCH)")
	f.BoolVar(&o.push, "push", false, "push the images, as multi-architecture indexes")
	f.BoolVar(&o.save, "save", false, "write compressed tarballs (.tar.gz) too")
	f.BoolVar(&o.list, "list", false, "print the names of the images only")
	f.BoolVar(&o.dockerfiles, "dockerfiles", false, "write the Dockerfile of each image beside the specification only")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.names, o.archs = f.Args(), split(archs)
	if o.version == "" {
		o.version = split(o.tag)[0]
	}
	for _, a := range o.archs {
		if a != "amd64" && a != "arm64" {
			return o, fmt.Errorf("-arch %q: supported: amd64, arm64", a)
		}
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return o, err
	}
	o.root = root
	for _, p := range []*string{&o.out, &o.specFile} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(root, *p)
		}
	}
	return o, nil
}

// split takes commas, blanks and the "linux/" of platform names.
func split(list string) []string {
	var out []string
	for _, part := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		out = append(out, strings.TrimPrefix(part, "linux/"))
	}
	return out
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	file, err := spec.Read(o.specFile)
	if err != nil {
		return err
	}
	names, err := file.Select(o.names)
	if err != nil {
		return err
	}
	if o.list {
		fmt.Println(strings.Join(names, "\n"))
		return nil
	}
	if o.dockerfiles {
		return writeDockerfiles(file, names, filepath.Dir(o.specFile))
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	variants := split(o.variant)
	if len(variants) == 0 {
		variants = []string{"distroless"}
	}
	for _, variant := range variants {
		if err := o.build(ctx, file, names, variant); err != nil {
			return err
		}
	}
	return nil
}

// writeDockerfiles writes DIR/IMAGE/Dockerfile.
func writeDockerfiles(file *spec.File, names []string, dir string) error {
	for _, name := range names {
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := image.WriteFile(filepath.Join(to, "Dockerfile"), []byte(file.Dockerfile(name))); err != nil {
			return err
		}
	}
	return nil
}

// build makes all the images of one variant.
func (o options) build(ctx context.Context, file *spec.File, names []string, variant string) error {
	if variant != "distroless" && variant != "debug" {
		return fmt.Errorf("-variant %q: supported: distroless, debug", variant)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	builder := image.New(image.Config{
		Root: o.root, Out: o.out, Version: o.version, Revision: o.revision, Created: time.Unix(o.epoch, 0),
		Release: o.release, Debug: variant == "debug", Log: log,
	}, file)
	var problems []error // one image's do not keep the others from being built
	for _, name := range names {
		started := time.Now()
		if err := o.one(ctx, builder, name, variant, file.Images[name]); err != nil {
			log.Error("not built", "image", name)
			problems = append(problems, err)
			continue
		}
		log.Info("built", "image", name, "variant", variant, "architectures", o.archs, "took", time.Since(started).Round(time.Millisecond))
	}
	return errors.Join(problems...)
}

func (o options) one(ctx context.Context, builder *image.Builder, name, variant string, described *spec.Image) error {
	var images []*image.Image
	for _, arch := range o.archs {
		i, err := builder.Build(ctx, name, arch)
		if err != nil {
			return err
		}
		images = append(images, i)
	}
	return o.output(ctx, name, variant, described, images)
}

// tags are those of a variant. The default one answers to the name "distroless" too, as charts may say so.
func (o options) tags(variant string) []string {
	var out []string
	for _, tag := range split(o.tag) {
		if variant == "distroless" {
			out = append(out, tag)
		}
		out = append(out, tag+"-"+variant)
	}
	return out
}

func (o options) output(ctx context.Context, name, variant string, described *spec.Image, images []*image.Image) error {
	var own []string
	for _, hub := range split(o.hub) {
		for _, tag := range o.tags(variant) {
			own = append(own, hub+"/"+name+":"+tag)
		}
	}
	stem := filepath.Join(o.out, name)
	local := own
	if variant == "debug" {
		stem += "-debug"
	} else {
		local = append(local, described.Aliases...)
	}
	references, err := image.References(local)
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := image.WriteTarball(stem+"-"+i.Arch+".tar", i, references, false); err != nil {
			return err
		}
		if o.save {
			if err := image.WriteTarball(stem+"-"+i.Arch+".tar.gz", i, references, true); err != nil {
				return err
			}
		}
		if err := image.WriteFile(stem+"-"+i.Arch+".spdx.json", i.SBOM); err != nil {
			return err
		}
	}
	if err := image.WriteLayout(filepath.Join(o.out, "oci", filepath.Base(stem)), images); err != nil {
		return err
	}
	if !o.push {
		return nil
	}
	targets, err := image.References(own)
	if err != nil {
		return err
	}
	for _, to := range targets {
		digest, err := image.Push(ctx, to, images, http.DefaultTransport)
		if err != nil {
			return err
		}
		fmt.Printf("%s@%s\n", to, digest)
	}
	return nil
}
