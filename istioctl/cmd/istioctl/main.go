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

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	sandboxcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/sandbox"
)

// Set by the linker.
var version, revision string

func main() {
	if handled, exit := sandboxcmd.Main(os.Args); handled {
		os.Exit(exit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run returns the exit code.
func run(ctx context.Context, args []string) int {
	cmd := root() //nolint:contextcheck // cobra passes it on
	cmd.SetArgs(cli.GlobalsLast(args))
	err := cmd.ExecuteContext(ctx)
	exit := &cli.ExitError{Code: 1, Err: err}
	if err == nil {
		return 0
	}
	errors.As(err, &exit)
	if exit.Err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
	}
	return exit.Code
}

func root() *cobra.Command {
	globals := &cli.Globals{}
	cmd := &cobra.Command{
		Use: "istioctl", Short: "Install, inspect and try the mesh", SilenceUsage: true, SilenceErrors: true,
		Example: "  istioctl install --set profile=ambient -y\n  istioctl proxy-status\n  istioctl x describe pod productpage-v1-7d9c-x2x",
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.FromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			if err := cli.FromFile(cmd, os.LookupEnv); err != nil {
				return err
			}
			return globals.Begin(cmd)
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.SuggestionsMinimumDistance = 2
	addCommands(cmd, globals)
	cli.AddCompletion(cmd, globals, os.LookupEnv)
	cmd.SetFlagErrorFunc(cli.SuggestFlag)
	return cmd
}
