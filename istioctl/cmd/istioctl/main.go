// Command istioctl is the person's hands and eyes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	sandboxcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/sandbox"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/sandbox"
)

// Set by the linker.
var version, revision string

func main() {
	if handled, exit := sandbox.Main(os.Args); handled {
		os.Exit(exit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	var exit *sandboxcmd.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.Code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use: "istioctl", Short: "Inspect and try the mesh", SilenceUsage: true, SilenceErrors: true,
	}
	build := telemetry.NewBuild(version, revision)
	cmd.AddCommand(sandboxcmd.New(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "client version:", build.Version)
		},
	})
	return cmd
}
