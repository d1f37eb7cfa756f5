// Package install has the commands install and upgrade.
package install

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/operator/install"
	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// flags of both commands.
type flags struct {
	cli.Installation
	yes, dryRun, verify bool
	timeout             time.Duration
	upgrade             bool
}

// New returns the command install.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "install", Aliases: []string{"apply"},
		Short: "Install the mesh into a cluster, or change what is installed",
		Long: "Install the mesh into a cluster. What is installed already is changed to what is asked for; what is not part of it any more is\n" +
			"removed. Each component is ready before the next one follows.",
		Example: "  istioctl install --set profile=ambient -y\n  istioctl install -f my-operator.yaml\n  istioctl install --set profile=ambient --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, g, build) },
	}
	f.add(cmd)
	return cmd
}

// NewUpgrade returns the command upgrade.
func NewUpgrade(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{upgrade: true}
	cmd := &cobra.Command{
		Use:     "upgrade",
		Short:   "Change the installed mesh to this version",
		Long:    "Change the installed mesh to this version. Say what is installed as you said it to install; what differs is changed in place.",
		Example: "  istioctl upgrade --set profile=ambient -y",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, g, build) },
	}
	f.add(cmd)
	return cmd
}

func (f *flags) add(cmd *cobra.Command) {
	f.Add(cmd.Flags())
	cmd.Flags().BoolVarP(&f.yes, "skip-confirmation", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "have the cluster check everything, and change nothing")
	cmd.Flags().BoolVar(&f.verify, "verify", false, "compare the cluster with the installation in the end")
	cmd.Flags().DurationVar(&f.timeout, "readiness-timeout", install.DefaultTimeout, "how long a component may take to become ready")
}

func (f *flags) run(cmd *cobra.Command, g *cli.Globals, build telemetry.Build) error {
	out := cmd.OutOrStdout()
	op, err := f.Read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	cluster, err := g.Connect()
	if err != nil {
		return err
	}
	options := f.RenderOptions(build, g)
	if options.KubeVersion, err = cluster.Version(); err != nil {
		return err
	}
	what, err := render.Render(op, options)
	if err != nil {
		return err
	}
	if err := checkMesh(what); err != nil && !options.Force {
		return err
	}
	if f.upgrade {
		if err := f.compare(cmd.Context(), out, cluster, build); err != nil {
			return err
		}
	}
	if !f.yes && !f.dryRun && !cli.Confirm(cmd.InOrStdin(), out, question(op, build, f.upgrade)) {
		fmt.Fprintln(out, "Cancelled.")
		return nil
	}
	progress := install.NewProgress(out, cli.IsTerminal(out))
	if err := cluster.Install(cmd.Context(), what, install.Options{DryRun: f.dryRun, Timeout: f.timeout, Report: progress}); err != nil {
		progress.Failed()
		return err
	}
	if f.dryRun {
		progress.Finished("Nothing was changed: this was a dry run")
		return nil
	}
	if f.verify {
		good, err := cluster.Verify(cmd.Context(), what)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		progress.Finished(fmt.Sprintf("Verified %d objects", good))
	}
	progress.Finished("Installation complete")
	return hints(cmd.Context(), out, cluster)
}

func question(op *iop.Operator, build telemetry.Build, upgrade bool) string {
	profile := op.Spec.Profile
	if profile == "" {
		profile = "default"
	}
	verb := "install"
	if upgrade {
		verb = "upgrade to"
	}
	return fmt.Sprintf("This will %s the %s profile of version %s in the cluster. Proceed?", verb, profile, build.Version)
}

// compare says from what to what an upgrade goes.
func (f *flags) compare(ctx context.Context, out io.Writer, cluster *install.Cluster, build telemetry.Build) error {
	versions, err := cluster.Versions(ctx)
	if err != nil {
		return err
	}
	if len(versions) == 0 {
		return fmt.Errorf("nothing is installed to be upgraded: use istioctl install")
	}
	for _, v := range versions {
		fmt.Fprintf(out, "Installed: %s. This program: %s.\n", v, build.Version)
	}
	return nil
}

// hints says what may be missing for the mesh to be of use.
func hints(ctx context.Context, out io.Writer, cluster *install.Cluster) error {
	has, err := cluster.HasGatewayAPI(ctx)
	if err != nil || has {
		return err
	}
	fmt.Fprint(out, "\nThe cluster does not have the Gateway API, which waypoints and gateways are asked for with. To install it:\n\n"+
		"  istioctl manifest gateway-api | kubectl apply --server-side -f -\n")
	return nil
}
