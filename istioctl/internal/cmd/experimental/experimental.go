// Package experimental has the commands that Istio calls experimental. Those that graduated stay where people type them.
package experimental

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
)

// New returns the command with what it is given beside its own.
func New(g *cli.Globals, more ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "experimental", Aliases: []string{"x", "exp"}, Short: "Commands that may still change",
		Example: "  istioctl x describe pod productpage-v1-7d9c-x2x\n  istioctl x authz check deploy/waypoint\n  istioctl x metrics reviews-v1",
	}
	cmd.AddCommand(describeCommands(g), authz(g), metrics(g), config(), internalDebug(g), wait(g))
	cmd.AddCommand(more...)
	return cli.Group(cmd)
}
