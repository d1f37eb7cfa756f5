// Package verify has the command verify-install.
package verify

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// New returns the command.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &cli.Installation{}
	cmd := &cobra.Command{
		Use:   "verify-install",
		Short: "Look whether the installed mesh is complete and ready",
		Long: "Look whether what is installed is ready; with -f or -s, also whether it is all that they describe. Exits with 1, and says what is\n" +
			"the matter, when not.",
		Example: "  istioctl verify-install\n  istioctl verify-install --set profile=ambient",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return run(cmd, f, g, build) },
	}
	f.Add(cmd.Flags())
	return cmd
}

func run(cmd *cobra.Command, f *cli.Installation, g *cli.Globals, build telemetry.Build) error {
	out := cmd.OutOrStdout()
	cluster, err := g.Connect()
	if err != nil {
		return err
	}
	if len(f.Files) == 0 && len(f.Set) == 0 {
		components, err := cluster.VerifyInstalled(cmd.Context())
		for _, name := range slices.Sorted(maps.Keys(components)) {
			fmt.Fprintf(out, "%s: %d objects\n", name, components[name])
		}
		if err == nil {
			fmt.Fprintln(out, "✔ The mesh is installed and ready")
		}
		return err
	}
	op, err := f.Read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	what, err := render.Render(op, f.RenderOptions(build, g))
	if err != nil {
		return err
	}
	good, err := cluster.Verify(cmd.Context(), what)
	fmt.Fprintf(out, "%d of %d objects are as they should be\n", good, len(what.Objects()))
	if err == nil {
		fmt.Fprintln(out, "✔ The mesh is installed and ready")
	}
	return err
}
