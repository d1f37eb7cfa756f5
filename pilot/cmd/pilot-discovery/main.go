// Command pilot-discovery is the control plane.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Set by the linker.
var version, revision string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	build := telemetry.NewBuild(version, revision)
	cmd := &cobra.Command{Use: "pilot-discovery", Short: "Control plane of the mesh", SilenceUsage: true, SilenceErrors: true}
	cmd.AddCommand(discovery(build), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), build) },
	})
	return cmd
}
