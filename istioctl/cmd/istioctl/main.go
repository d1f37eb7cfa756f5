// Command istioctl is the person's hands and eyes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	admincmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/admin"
	installcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/install"
	manifestcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/manifest"
	proxyconfigcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/proxyconfig"
	proxystatuscmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/proxystatus"
	sandboxcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/sandbox"
	uninstallcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/uninstall"
	verifycmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/verify"
	versioncmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/version"
	waypointcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/waypoints"
	ztunnelconfigcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/ztunnelconfig"
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
	globals := &cli.Globals{}
	cmd := &cobra.Command{
		Use: "istioctl", Short: "Install, inspect and try the mesh", SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags(), os.LookupEnv)
		},
	}
	cmd.SuggestionsMinimumDistance = 2
	build := telemetry.NewBuild(version, revision)
	// The sandbox is no cluster, and has flags of its own.
	cmd.AddCommand(sandboxcmd.New())
	for _, sub := range []*cobra.Command{
		installcmd.New(globals, build), installcmd.NewUpgrade(globals, build), uninstallcmd.New(globals, build),
		manifestcmd.New(globals, build), verifycmd.New(globals, build),
	} {
		globals.Add(sub.PersistentFlags())
		cmd.AddCommand(sub)
	}
	// These look at a mesh wherever it runs.
	for _, sub := range []*cobra.Command{
		versioncmd.New(globals, build), proxyconfigcmd.New(globals), proxystatuscmd.New(globals), ztunnelconfigcmd.New(globals),
		waypointcmd.New(globals), admincmd.New(globals),
	} {
		globals.Add(sub.PersistentFlags())
		globals.AddMesh(sub.PersistentFlags())
		cmd.AddCommand(sub)
	}
	cmd.SetFlagErrorFunc(cli.SuggestFlag)
	return cmd
}

// fromEnvironment sets flags that the command line does not set from ISTIOCTL_NAME.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var problems []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "ISTIOCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := lookup(name); ok && !f.Changed {
			if err := flags.Set(f.Name, value); err != nil {
				problems = append(problems, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	})
	return errors.Join(problems...)
}
