// Package bugreport has the command that collects what is needed to find out what is wrong with a mesh.
package bugreport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// flags of the command.
type flags struct {
	g     *cli.Globals
	build telemetry.Build

	include, exclude          []string
	outputDir                 string
	duration, timeout         time.Duration
	start, end                string
	istioNamespaces           []string
	critical, ignored         []string
	concurrency               int
	megabytes                 int
	fullSecrets, dryRun       bool
	file, directory           string
	from, to                  time.Time
	namespaces                []string // of the control plane
	includeFilter, leftFilter []filter
}

// New returns the command.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{g: g, build: build}
	cmd := &cobra.Command{
		Use: "bug-report", Short: "Collect what is needed to find out what is wrong, in one file", Args: cobra.NoArgs,
		Long: "Collect versions, objects, events, logs, the state of the control plane, and the configuration and metrics of all proxies in\n" +
			"bug-report.tar.gz. Private keys, tokens and passwords are taken out; look through it all the same before you hand it on.",
		Example: "  istioctl bug-report\n  istioctl bug-report --include shop,payments --duration 1h\n  istioctl bug-report --sandbox default --output-dir /tmp",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.run(cmd)
		},
	}
	s := cmd.Flags()
	s.StringSliceVar(&f.include, "include", nil, "namespaces to collect, each as NAMESPACE or NAMESPACE/DEPLOYMENT or NAMESPACE/DEPLOYMENT/POD, with * for any; all unless given")
	s.StringSliceVar(&f.exclude, "exclude", []string{"kube-node-lease", "kube-public", "local-path-storage"}, "namespaces to leave out, in the same form")
	s.StringVar(&f.directory, "dir", "", "directory to write the archive's files to as well")
	s.StringVar(&f.outputDir, "output-dir", ".", "directory of bug-report.tar.gz")
	s.DurationVar(&f.duration, "duration", 0, "only logs and events of this time before --end-time")
	s.StringVar(&f.start, "start-time", "", "only logs and events since this time, as 2026-11-21T12:00:00Z")
	s.StringVar(&f.end, "end-time", "", "end of --duration, in the same form; now unless given")
	s.DurationVar(&f.timeout, "timeout", 30*time.Minute, "how long to collect; what is there then is kept")
	s.StringSliceVar(&f.istioNamespaces, "istio-namespaces", nil, "namespaces of control planes, instead of --istioNamespace")
	s.StringSliceVar(&f.critical, "critical-errs", []string{"panic", "fatal"}, "words for which lines of logs are put into the summary")
	s.StringSliceVar(&f.ignored, "ignore-errs", nil, "words for which lines are not put there after all")
	s.IntVar(&f.concurrency, "rq-concurrency", 8, "how many requests are made at a time")
	s.IntVar(&f.megabytes, "max-size", 1024, "megabytes that are collected at most, before they are compressed")
	s.BoolVar(&f.fullSecrets, "full-secrets", false, "not supported: values of Secrets are never collected")
	s.BoolVar(&f.dryRun, "dry-run", false, "say what would be collected, and collect nothing")
	s.StringVarP(&f.file, "filename", "f", "", "file with these flags in YAML, as include: [shop]")
	return cmd
}

func (f *flags) check() error {
	if f.file != "" {
		if err := f.read(); err != nil {
			return err
		}
	}
	var err error
	f.to = time.Now()
	if f.end != "" {
		if f.to, err = time.Parse(time.RFC3339, f.end); err != nil {
			return fmt.Errorf("--end-time: %w", err)
		}
	}
	switch {
	case f.start != "" && f.duration != 0:
		return errors.New("--start-time and --duration exclude each other")
	case f.start != "":
		if f.from, err = time.Parse(time.RFC3339, f.start); err != nil {
			return fmt.Errorf("--start-time: %w", err)
		}
	case f.duration != 0:
		f.from = f.to.Add(-f.duration)
	}
	if f.concurrency < 1 || f.megabytes < 1 {
		return errors.New("--rq-concurrency and --max-size are 1 at least")
	}
	f.namespaces = f.istioNamespaces
	if len(f.namespaces) == 0 {
		f.namespaces = []string{f.g.IstioNamespace}
	}
	if f.includeFilter, err = filters(f.include); err != nil {
		return fmt.Errorf("--include: %w", err)
	}
	if f.leftFilter, err = filters(f.exclude); err != nil {
		return fmt.Errorf("--exclude: %w", err)
	}
	return nil
}

// filter is a pattern of namespace/deployment/pod.
type filter struct{ namespace, deployment, pod string }

func filters(all []string) ([]filter, error) {
	var out []filter
	for _, text := range all {
		parts := strings.Split(text, "/")
		if len(parts) > 3 || parts[0] == "" {
			return nil, fmt.Errorf("%q is no NAMESPACE, NAMESPACE/DEPLOYMENT or NAMESPACE/DEPLOYMENT/POD", text)
		}
		for len(parts) < 3 {
			parts = append(parts, "*")
		}
		for _, p := range parts {
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("%q: %w", text, err)
			}
		}
		out = append(out, filter{parts[0], parts[1], parts[2]})
	}
	return out, nil
}

func like(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && (ok || pattern == "")
}

// wantsNamespace is whether anything of a namespace is collected.
func (f *flags) wantsNamespace(namespace string) bool {
	if slices.Contains(f.namespaces, namespace) {
		return true
	}
	if slices.ContainsFunc(f.leftFilter, func(x filter) bool { return like(x.namespace, namespace) && x.deployment == "*" && x.pod == "*" }) {
		return false
	}
	return len(f.includeFilter) == 0 || slices.ContainsFunc(f.includeFilter, func(x filter) bool { return like(x.namespace, namespace) })
}

// wantsPod is whether a pod is collected. Its deployment's name is what is before what Kubernetes appends.
func (f *flags) wantsPod(p reach.Pod) bool {
	if slices.Contains(f.namespaces, p.Namespace) {
		return true
	}
	deployment := p.Name
	if parts := strings.Split(p.Name, "-"); len(parts) > 2 {
		deployment = strings.Join(parts[:len(parts)-2], "-")
	}
	meets := func(x filter) bool {
		return like(x.namespace, p.Namespace) && like(x.deployment, deployment) && like(x.pod, p.Name)
	}
	return !slices.ContainsFunc(f.leftFilter, meets) && (len(f.includeFilter) == 0 || slices.ContainsFunc(f.includeFilter, meets))
}

func (f *flags) run(cmd *cobra.Command) error {
	mesh, err := f.g.Mesh()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	out := cmd.OutOrStdout()
	c := &collector{flags: f, mesh: mesh}
	items, err := c.plan(ctx)
	if err != nil {
		return err
	}
	if f.fullSecrets {
		fmt.Fprintln(cmd.ErrOrStderr(), "Warning: --full-secrets: values of Secrets are never collected")
	}
	if f.dryRun {
		for _, i := range items {
			fmt.Fprintln(out, i.name)
		}
		return nil
	}
	file := filepath.Join(f.outputDir, "bug-report.tar.gz")
	if err := c.write(ctx, file, items, cmd.ErrOrStderr()); err != nil {
		return err
	}
	if cmd.Context().Err() != nil {
		return cmd.Context().Err()
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	for _, line := range c.found {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "Collected %d files, %d could not be: see summary.txt in it\nSaved as %s (%d KiB). Look through it before you hand it on.\n",
		c.good, len(c.problems), file, info.Size()/1024)
	return nil
}
