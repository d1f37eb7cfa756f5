// Package options has the command that tells of the flags that all commands have.
package options

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
)

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use: "options", Short: "Print the flags that commands have in common", Args: cobra.NoArgs,
		Example: "  istioctl options",
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			// Of a copy: the defaults are what is shown.
			shown := *g
			shown.Add(flags)
			shown.AddMesh(flags)
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "The following options can be passed to any command that looks at a mesh:\n\n%s\n"+
				"Each can be set by an environment variable too, such as ISTIOCTL_ISTIONAMESPACE, or in $HOME/.istioctl/config.yaml.\n", flags.FlagUsages())
			return err
		},
	}
}
