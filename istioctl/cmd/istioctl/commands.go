package main

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	admincmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/admin"
	analyzecmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/analyze"
	bugreportcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/bugreport"
	checkcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/check"
	completioncmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/completion"
	dashboardcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/dashboard"
	diffcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/diff"
	experimentalcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/experimental"
	installcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/install"
	manifestcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/manifest"
	optionscmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/options"
	proxyconfigcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/proxyconfig"
	proxystatuscmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/proxystatus"
	sandboxcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/sandbox"
	tagcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/tag"
	uninstallcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/uninstall"
	validatecmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/validate"
	verifycmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/verify"
	versioncmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/version"
	waypointcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/waypoints"
	whycmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/why"
	ztunnelconfigcmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/ztunnelconfig"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// addCommands adds all commands; one a line.
func addCommands(root *cobra.Command, g *cli.Globals) {
	build := telemetry.NewBuild(version, revision)

	// These need no mesh, or have flags of their own.
	for _, cmd := range []*cobra.Command{
		completioncmd.New(),
		optionscmd.New(g),
		sandboxcmd.New(),
	} {
		root.AddCommand(cmd)
	}

	// These change a cluster, or make what changes it.
	for _, cmd := range []*cobra.Command{
		installcmd.New(g, build),
		installcmd.NewUpgrade(g, build),
		manifestcmd.New(g, build),
		uninstallcmd.New(g, build),
		verifycmd.New(g, build),
	} {
		g.Add(cmd.PersistentFlags())
		root.AddCommand(cmd)
	}

	// These look at a mesh wherever it runs: in a cluster or in a sandbox.
	for _, cmd := range []*cobra.Command{
		admincmd.New(g),
		bugreportcmd.New(g, build),
		checkcmd.New(g, build),
		dashboardcmd.New(g),
		experimentalcmd.New(g, checkcmd.NewPrecheck(g, build)),
		analyzecmd.New(g),
		diffcmd.New(g),
		proxyconfigcmd.New(g),
		proxystatuscmd.New(g),
		validatecmd.New(g),
		tagcmd.New(g),
		versioncmd.New(g, build),
		waypointcmd.New(g),
		whycmd.New(g),
		ztunnelconfigcmd.New(g),
	} {
		g.Add(cmd.PersistentFlags())
		g.AddMesh(cmd.PersistentFlags())
		root.AddCommand(cmd)
	}
}
