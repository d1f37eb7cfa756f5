// Package analyze has the command that looks for mistakes in the mesh's configuration.
package analyze

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/analyzers"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/crdschema"
	"github.com/isthmus-mesh/isthmus/operator/crds"
)

// Exit codes.
const (
	exitIssues = 79 // findings of the failure threshold
	exitParse  = 65 // files that could not be read as objects
)

type flags struct {
	g                 *cli.Globals
	list, useKube     bool
	allNamespaces     bool
	recursive         bool
	verbose, color    bool
	ignoreUnknown     bool
	failure, output   analysis.Level
	format            string
	meshConfigFile    string
	revision          string
	suppress, chosen  []string
	remoteContexts    []string
	excludeNamespaces []string
	timeout           time.Duration
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	f := &flags{g: g, failure: analysis.Error, output: analysis.Info}
	cmd := &cobra.Command{
		Use: "analyze [FILE|DIRECTORY|-]...", Short: "Analyze the mesh's configuration and print what is wrong with it",
		Long: "Analyze the mesh's configuration and print what is wrong with it. Without files, it is the configuration of the cluster, or of the\n" +
			"sandbox; with files, what would be there once they were applied; with --use-kube=false, the files alone.\n\n" +
			"The exit code is 79 when something of the failure threshold is found. docs/analyze.md tells of each code what to do. An object is\n" +
			"left alone by its annotation galley.istio.io/analyze-suppress: IST0118,ISM0001 (or \"*\").",
		Example: "  # What is in the cluster\n  istioctl analyze\n  istioctl analyze --all-namespaces\n\n" +
			"  # What would be there with more files\n  istioctl analyze a.yaml b.yaml my-app-config/\n\n" +
			"  # Files without a cluster\n  istioctl analyze --use-kube=false a.yaml b.yaml my-app-config/\n\n" +
			"  # All but one code of some pods\n  istioctl analyze -S \"IST0103=Pod *.testing\" -S \"IST0107=Deployment foobar.default\"\n\n" +
			"  # In a pipeline\n  istioctl analyze --use-kube=false --failure-threshold Warning -o json manifests/\n\n" +
			"  # Which analyzers there are\n  istioctl analyze -L",
		RunE: f.run,
	}
	p := cmd.Flags()
	p.BoolVarP(&f.list, "list-analyzers", "L", false, "list the analyzers, and do nothing else")
	p.BoolVarP(&f.useKube, "use-kube", "k", true, "analyze what is in the cluster or sandbox; with false, files only")
	p.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "analyze all namespaces")
	p.StringArrayVarP(&f.suppress, "suppress", "S", nil, "do not report a code of an object, as in \"IST0102=Namespace default\" or \"IST0103=Pod *.testing\"; may be repeated")
	p.BoolVarP(&f.recursive, "recursive", "R", true, "directories are always read with all that is below them; the flag is there for scripts")
	p.StringVarP(&f.format, "output", "o", "log", "log, json or yaml")
	p.Var(&f.failure, "failure-threshold", "level of findings at which the exit code is 79: Info, Warning or Error")
	p.Var(&f.output, "output-threshold", "level at which findings are printed: Info, Warning or Error")
	p.StringVar(&f.meshConfigFile, "meshConfigFile", "", "file with the mesh configuration to use instead of the cluster's")
	p.BoolVar(&f.color, "color", f.colorful(os.Stdout), "color the levels; off when the output is no terminal, with $NO_COLOR, or with $TERM=dumb")
	p.BoolVarP(&f.verbose, "verbose", "v", false, "tell what is done")
	p.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long reading and analyzing may take")
	p.BoolVar(&f.ignoreUnknown, "ignore-unknown", false, "do not fail because of files that could not be read as objects")
	p.StringVarP(&f.revision, "revision", "r", "default", "revision of the control plane whose objects count")
	p.StringArrayVar(&f.chosen, "analyzer", nil, "run only this analyzer, by the name that --list-analyzers gives; may be repeated")
	p.StringArrayVar(&f.remoteContexts, "remote-contexts", nil, "contexts of other clusters of the mesh; not supported: a mesh has one cluster")
	p.StringSliceVar(&f.excludeNamespaces, "exclude-namespaces", nil, "namespaces about whose objects nothing is reported")
	return cmd
}

func (f *flags) colorful(out any) bool {
	return cli.IsTerminal(out) && os.Getenv("NO_COLOR") == "" && !strings.EqualFold(os.Getenv("TERM"), "dumb")
}

func (f *flags) check() ([]analysis.Analyzer, []analysis.Suppression, error) {
	f.format = strings.ToLower(f.format)
	switch f.format {
	case "log", "json", "yaml":
	default:
		return nil, nil, fmt.Errorf("--output %q is none of log, json, yaml", f.format)
	}
	if len(f.remoteContexts) > 0 {
		return nil, nil, errors.New("--remote-contexts: a mesh has one cluster; analyze each cluster by itself with --context")
	}
	chosen, err := analyzers.Named(f.chosen)
	if err != nil {
		return nil, nil, err
	}
	var suppressions []analysis.Suppression
	for _, text := range f.suppress {
		s, err := analysis.ParseSuppression(text)
		if err != nil {
			return nil, nil, err
		}
		suppressions = append(suppressions, s)
	}
	return chosen, suppressions, nil
}

func (f *flags) run(cmd *cobra.Command, args []string) error {
	chosen, suppressions, err := f.check()
	if err != nil {
		return err
	}
	if f.list {
		for _, a := range chosen {
			fmt.Fprintf(cmd.OutOrStdout(), "* %s:\n    %s\n", a.Name, a.Description)
		}
		return nil
	}
	for _, s := range suppressions {
		if _, known := s.Code.Entry(); !known {
			fmt.Fprintf(cmd.ErrOrStderr(), "Warning: Supplied message code '%s' is an unknown message code and will not have any effect.\n", s.Code)
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	t, err := f.target(ctx, cmd, args)
	if err != nil {
		return err
	}
	found, err := analysis.Run(ctx, analysis.NewSnapshot(t.input), chosen)
	if err != nil {
		return fmt.Errorf("analyzing took longer than %s (raise --timeout): %w", f.timeout, err)
	}
	found = found.Unsuppressed(suppressions)
	if !f.allNamespaces {
		found = found.Of(t.namespace)
	}
	found = found.Without(f.excludeNamespaces)
	if f.verbose {
		fmt.Fprintf(cmd.ErrOrStderr(), "Analyzed resources in %s\nExecuted analyzers:\n", t)
		for _, a := range chosen {
			fmt.Fprintln(cmd.ErrOrStderr(), "\t", a.Name)
		}
		fmt.Fprintln(cmd.ErrOrStderr())
	}
	return f.report(cmd, t, found)
}

// target is what is analyzed.
type target struct {
	input     analysis.Input
	namespace string
	all       bool
	files     []string
	broken    int // files with something that is no object
}

func (t target) String() string {
	if t.all {
		return "all namespaces"
	}
	return "namespace: " + t.namespace
}

func (f *flags) target(ctx context.Context, cmd *cobra.Command, args []string) (target, error) {
	t := target{all: f.allNamespaces, namespace: cmp.Or(f.g.Namespace, "default")}
	if !f.useKube && len(args) == 0 {
		return t, errors.New("--use-kube=false without files leaves nothing to analyze: name files or directories")
	}
	if cli.IsTerminal(cmd.InOrStdin()) && f.format == "log" && contains(args, "-") {
		fmt.Fprintln(cmd.ErrOrStderr(), "Reading from stdin:")
	}
	files, err := collect.Files(args, cmd.InOrStdin(), func(name string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "Skipping file %s, recognized file extensions are: %v\n", name, collect.Extensions())
	})
	if err != nil {
		return t, err
	}
	if err := f.mesh(ctx, cmd, &t); err != nil {
		return t, err
	}
	schemas := crdschema.New(crds.Istio, crds.Isthmus, crds.GatewayAPI)
	for _, file := range files {
		parsed := collect.Parse(file, t.namespace, schemas.Check)
		t.files = append(t.files, file.Name)
		if len(parsed.Broken) > 0 {
			t.broken++
		}
		for _, e := range parsed.Broken {
			fmt.Fprintf(cmd.ErrOrStderr(), "Error(s) adding files: %v\n", e)
		}
		collect.Overlay(&t.input, parsed)
	}
	if f.meshConfigFile != "" {
		data, err := cli.ReadFile(f.meshConfigFile, cmd.InOrStdin())
		if err != nil {
			return t, err
		}
		if t.input.Mesh, err = collect.MeshConfig(data); err != nil {
			return t, fmt.Errorf("%s: %w", f.meshConfigFile, err)
		}
	}
	return t, nil
}

// mesh reads the cluster or sandbox, or what every installation has when there is to be none.
func (f *flags) mesh(ctx context.Context, cmd *cobra.Command, t *target) error {
	if !f.useKube {
		t.input = analysis.Input{Resources: collect.Assumed(f.g.IstioNamespace), IstioNamespace: f.g.IstioNamespace}
		return nil
	}
	mesh, err := f.g.Mesh()
	if err != nil {
		return fmt.Errorf("%w; files alone are analyzed with --use-kube=false", err)
	}
	mesh.Timeout = f.timeout
	t.namespace = mesh.Default
	options := collect.Options{IstioNamespace: f.g.IstioNamespace, Revision: f.revision}
	if f.verbose || cli.IsTerminal(cmd.ErrOrStderr()) {
		options.Progress = func(what string) { fmt.Fprintln(cmd.ErrOrStderr(), what+" …") }
	}
	if t.input, err = collect.Mesh(ctx, mesh, options); err != nil {
		return err
	}
	for kind, err := range t.input.Unread {
		fmt.Fprintf(cmd.ErrOrStderr(), "Warning: objects of kind %s cannot be read, so that nothing is said to be missing of them: %v\n", kind, err)
	}
	if !f.allNamespaces && t.input.Unread["Namespace"] == nil {
		if _, _, ok := analysis.Find[*corev1.Namespace](analysis.NewSnapshot(t.input), "", t.namespace); !ok {
			return fmt.Errorf("namespace %q not found", t.namespace)
		}
	}
	return nil
}

func contains(list []string, one string) bool {
	for _, s := range list {
		if s == one {
			return true
		}
	}
	return false
}
