package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cache"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/cluster"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/daemon"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/gobin"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/inotify"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/nodeimage"
)

func (o *options) cache() cache.Cache { return cache.Cache{Root: filepath.Join(o.dir, "cache")} }

func (o *options) builder() gobin.Builder {
	return gobin.Builder{Repo: o.repo, Cache: o.cache(), Log: o.log}
}

// binaries builds the pinned programs and links them into a folder.
func binaries(ctx context.Context, o *options, args []string, _ io.Writer) error {
	fs := o.flags("binaries")
	only := fs.String("only", "", "names of programs, comma-separated; pilot-discovery is Istio's (default all that a node has)")
	out := fs.String("out", filepath.Join(o.repo, "out/k8s/bin"), "folder for the programs")
	if err := fs.Parse(args); err != nil {
		return err
	}
	wanted := splitList(*only)
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	found, sets := 0, gobin.All()
	if wanted != nil {
		sets = append(sets, gobin.Istiod())
	}
	for _, set := range sets {
		built, err := o.builder().Build(ctx, set, wanted)
		if err != nil {
			return err
		}
		for name, path := range built {
			found++
			if err := relink(path, filepath.Join(*out, name)); err != nil {
				return err
			}
		}
	}
	if wanted != nil && found != len(wanted) {
		return fmt.Errorf("-only %s: %d of %d programs are known", *only, found, len(wanted))
	}
	return nil
}

func relink(target, at string) error {
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, at)
}

// image makes the node image and prints its name.
func image(ctx context.Context, o *options, args []string, out io.Writer) error {
	fs := o.flags("image")
	save := fs.String("save", "", "also write the image into this file, as docker save does")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	name, err := o.nodeImage(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, name)
	if *save == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "docker", "save", "-o", *save, name)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// up creates the cluster.
func up(ctx context.Context, o *options, args []string, _ io.Writer) error {
	fs := o.flags("up")
	o.clusterFlags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	return o.up(ctx)
}

func (o *options) up(ctx context.Context) error {
	if err := o.connect(ctx); err != nil {
		return err
	}
	image, err := o.nodeImage(ctx)
	if err != nil {
		return err
	}
	if err := inotify.Raise(inotify.Dir); err != nil {
		o.log.Warn("many nodes may run out of file watches", "error", err)
	}
	return cluster.New(o.log).Up(cluster.Config{
		Name: o.name, Image: image, Workers: o.workers, Family: o.family, Kubeconfig: o.kubeconfigPath(), Wait: o.wait,
	})
}

// load puts image archives into the nodes.
func load(ctx context.Context, o *options, args []string, _ io.Writer) error {
	fs := o.flags("load")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("load: which archives?")
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	return cluster.New(o.log).Load(ctx, o.name, fs.Args())
}

// env prints how to reach cluster and daemon.
func env(ctx context.Context, o *options, args []string, out io.Writer) error {
	fs := o.flags("env")
	o.clusterFlags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "export KUBECONFIG=%s\n", o.kubeconfigPath())
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		fmt.Fprintf(out, "export DOCKER_HOST=%s\n", host)
	}
	return nil
}

// down deletes the cluster.
func down(ctx context.Context, o *options, args []string, _ io.Writer) error {
	fs := o.flags("down")
	o.clusterFlags(fs)
	all := fs.Bool("all", false, "delete every cluster of the private docker daemon, and stop it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	private := o.private()
	if *all {
		o.dockerHost = "private"
		if !daemon.Reachable(ctx, private.Host()) {
			return nil
		}
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	lab := cluster.New(o.log)
	names := []string{o.name}
	if *all {
		var err error
		if names, err = lab.Names(); err != nil {
			return err
		}
	}
	for _, n := range names {
		if err := lab.Down(n, o.kubeconfigPath()); err != nil {
			return err
		}
	}
	if *all {
		return private.Stop(ctx)
	}
	return nil
}

func (o *options) nodeImage(ctx context.Context) (string, error) {
	if o.image != "" {
		return o.image, nil
	}
	if err := requireTools(ctx, o, map[string]string{"debootstrap": "debootstrap", "tar": "tar"}); err != nil {
		return "", err
	}
	maker := nodeimage.Maker{Repo: o.repo, Cache: o.cache(), Mirror: o.mirror, Log: o.log}
	return maker.Make(ctx)
}

func (o *options) private() daemon.Daemon {
	return daemon.Daemon{Dir: filepath.Join(o.dir, "docker"), Log: o.log}
}

// connect makes sure that a docker daemon runs, and puts its address where kind and the docker client look for it.
func (o *options) connect(ctx context.Context) error {
	needs := map[string]string{"docker": "docker.io"}
	if !strings.Contains(o.dockerHost, "://") {
		needs["dockerd"], needs["iptables"] = "docker.io", "iptables"
	}
	if err := requireTools(ctx, o, needs); err != nil {
		return err
	}
	lacks, err := daemon.LacksResource()
	if err != nil {
		return err
	}
	private := o.private()
	switch o.dockerHost {
	case "private":
	case "auto":
		// The daemon that a cluster of ours may live in wins over the machine's.
		if !daemon.Reachable(ctx, private.Host()) && !lacks && daemon.Reachable(ctx, "") {
			return nil
		}
	default:
		return os.Setenv("DOCKER_HOST", o.dockerHost)
	}
	wrapper := ""
	if lacks {
		built, err := o.builder().Build(ctx, gobin.RuncWrapper(), nil)
		if err != nil {
			return err
		}
		wrapper = built["runc-wrapper"]
	}
	if err := private.Start(ctx, wrapper); err != nil {
		return err
	}
	return os.Setenv("DOCKER_HOST", private.Host())
}

// requireTools installs the Debian packages whose commands are missing here.
func requireTools(ctx context.Context, o *options, needs map[string]string) error {
	var missing []string
	for command, pkg := range needs {
		if _, err := exec.LookPath(command); err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	o.log.Info("installing", "packages", missing)
	script := `apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null`
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script, "sh"}, missing...)...)
	cmd.Env = append(cmd.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w (install them by hand, or run this as root on Debian)\n%s", strings.Join(missing, " "), err, out)
	}
	return nil
}
