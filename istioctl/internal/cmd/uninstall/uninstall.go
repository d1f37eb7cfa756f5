// Package uninstall has the command uninstall.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/operator/install"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

type flags struct {
	cli.Installation
	yes, dryRun, purge, verbose bool
}

// New returns the command.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the mesh, or one revision of it, from a cluster",
		Long: "Remove a revision (-r), what an IstioOperator file or settings describe (-f, -s), or everything (--purge): then also what the mesh\n" +
			"made itself, and the definitions of its kinds with all objects of these kinds. Namespaces stay.",
		Example: "  istioctl uninstall --purge -y\n  istioctl uninstall -r canary",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, g, build) },
	}
	f.Add(cmd.Flags())
	cmd.Flags().BoolVarP(&f.yes, "skip-confirmation", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.purge, "purge", false, "remove everything, of all revisions")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "list every object")
	return cmd
}

func (f *flags) run(cmd *cobra.Command, g *cli.Globals, build telemetry.Build) error {
	if !f.purge && f.Revision == "" && len(f.Files) == 0 && len(f.Set) == 0 {
		return errors.New("what is to be removed? Name a revision (--revision), a file (-f) or settings (--set), or everything (--purge)")
	}
	cluster, err := g.Connect()
	if err != nil {
		return err
	}
	removal, err := f.find(cmd, g, build, cluster)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if len(removal.Objects) == 0 {
		fmt.Fprintln(out, "Nothing to remove.")
		return nil
	}
	f.list(out, removal)
	if f.dryRun {
		return cluster.Remove(cmd.Context(), removal, install.Options{DryRun: true})
	}
	if !f.yes && !cli.Confirm(cmd.InOrStdin(), out, "Proceed?") {
		fmt.Fprintln(out, "Cancelled.")
		return nil
	}
	progress := install.NewProgress(out, cli.IsTerminal(out))
	if err := cluster.Remove(cmd.Context(), removal, install.Options{Report: progress}); err != nil {
		return err
	}
	progress.Finished("Uninstall complete")
	return f.left(cmd.Context(), out, cluster)
}

// find returns what the flags ask to remove.
func (f *flags) find(cmd *cobra.Command, g *cli.Globals, build telemetry.Build, cluster *install.Cluster) (*install.Removal, error) {
	switch {
	case f.purge:
		return cluster.FindAll(cmd.Context())
	case len(f.Files) == 0 && len(f.Set) == 0:
		return cluster.FindRevision(cmd.Context(), f.Revision)
	}
	op, err := f.Read(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	what, err := render.Render(op, f.RenderOptions(build, g))
	if err != nil {
		return nil, err
	}
	return cluster.Find(cmd.Context(), what)
}

// list says what will be removed: each object, or how many of each kind when there are many.
func (f *flags) list(out io.Writer, r *install.Removal) {
	if f.purge {
		fmt.Fprintln(out, "All resources of the mesh will be pruned from the cluster")
	} else {
		fmt.Fprintln(out, "The following resources will be pruned:")
	}
	names := map[string][]string{}
	for _, u := range r.Objects {
		names[u.GetKind()] = append(names[u.GetKind()], strings.TrimPrefix(install.Name(u), u.GetKind()+"/"))
	}
	for _, kind := range slices.Sorted(maps.Keys(names)) {
		slices.Sort(names[kind])
		if len(names[kind]) > 12 && !f.verbose {
			fmt.Fprintf(out, "  %s: %d, such as %s\n", kind, len(names[kind]), names[kind][0])
			continue
		}
		fmt.Fprintf(out, "  %s: %s\n", kind, strings.Join(names[kind], ", "))
	}
	if len(r.Resources) > 0 {
		fmt.Fprintln(out, "With the definitions of their kinds, these objects of yours go for good:")
		for _, kind := range slices.Sorted(maps.Keys(r.Resources)) {
			fmt.Fprintf(out, "  %s: %d\n", kind, r.Resources[kind])
		}
	}
}

// left says what was removed incompletely, as far as can be seen.
func (f *flags) left(ctx context.Context, out io.Writer, cluster *install.Cluster) error {
	if !f.purge {
		return nil
	}
	rest, err := cluster.FindAll(ctx)
	if err != nil {
		return err
	}
	for _, u := range rest.Objects {
		fmt.Fprintf(out, "  still there: %s\n", install.Name(u))
	}
	return nil
}
