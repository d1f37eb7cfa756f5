// Package proxyconfig has the commands that show the configuration of a waypoint, gateway or sidecar.
package proxyconfig

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "proxy-config", Aliases: []string{"pc"}, Short: "Show the configuration of a waypoint, gateway or sidecar",
		Long: "Show the configuration of a waypoint, gateway or sidecar, as it is in force there: from a cluster, from a sandbox, or from a file.\n" +
			"Proxies are named as POD, POD.NAMESPACE, deploy/NAME, svc/NAME or gateway/NAME.",
		Example: "  istioctl proxy-config cluster deploy/waypoint --direction inbound\n" +
			"  istioctl proxy-config listener waypoint-7d9c-x2x.default --waypoint\n" +
			"  istioctl proxy-config route --file config_dump.json -o yaml",
	}
	cmd.AddCommand(clusters(g), listeners(g), routes(g), endpoints(g), bootstrap(g), secrets(g), extensions(g), compareRoots(g), logs(g), all(g))
	return cli.Group(cmd)
}

// The paths of the admin port.
const (
	dumpPath     = "/config_dump"
	edsPath      = "/config_dump?include_eds"
	clustersPath = "/clusters?format=json"
)

// view is what the commands that show have in common: where the dump is, and how it is printed.
type view struct {
	g      *cli.Globals
	file   string
	port   int
	output cli.Output
}

// add adds the flags.
func (v *view) add(cmd *cobra.Command, otherwise string) {
	v.output.Add(cmd.Flags(), otherwise)
	cmd.Flags().StringVarP(&v.file, "file", "f", "", "file with the answer of the proxy to look at instead of a proxy, - for the standard input")
	cmd.Flags().IntVar(&v.port, "proxy-admin-port", reach.AdminPort, "port of the proxy's admin interface")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case v.file != "" && len(args) > 0:
			return errors.New("name a proxy or --file, not both")
		case v.file == "" && len(args) == 0:
			return fmt.Errorf("which proxy: name it as POD, POD.NAMESPACE or deploy/NAME, or a dump by --file")
		case len(args) > 1:
			return fmt.Errorf("%q: one proxy at a time", args[1])
		}
		return v.output.Check()
	}
}

// read returns the configuration, from the first path of the proxy and, if there are more, from those.
func (v *view) read(cmd *cobra.Command, args []string, paths ...string) (*dump.Envoy, error) {
	if v.file != "" {
		data, err := cli.ReadFile(v.file, cmd.InOrStdin())
		if err != nil {
			return nil, err
		}
		e, err := dump.ReadEnvoy(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.file, err)
		}
		return e, nil
	}
	mesh, err := v.g.Mesh()
	if err != nil {
		return nil, err
	}
	pod, err := mesh.Find(cmd.Context(), args[0])
	if err != nil {
		return nil, err
	}
	data, err := mesh.Get(cmd.Context(), pod, v.port, paths[0])
	if err != nil {
		return nil, fmt.Errorf("%w; is it a waypoint, a gateway or a pod with a sidecar?", err)
	}
	e, err := dump.ReadEnvoy(data)
	if err != nil {
		return nil, fmt.Errorf("what %s answers: %w", pod, err)
	}
	for _, path := range paths[1:] {
		if data, err = mesh.Get(cmd.Context(), pod, v.port, path); err != nil {
			return nil, err
		}
		if err := e.ReadClusters(data); err != nil {
			return nil, fmt.Errorf("%s of %s: %w", path, pod, err)
		}
	}
	return e, nil
}

func bootstrap(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	cmd := &cobra.Command{
		Use: "bootstrap POD", Aliases: []string{"b"}, Short: "Show what a proxy started with",
		Example: "  istioctl proxy-config bootstrap deploy/waypoint -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := v.read(cmd, args, dumpPath)
			if err != nil {
				return err
			}
			whole, err := e.Bootstrap()
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), e.BootstrapTable(), whole)
		},
	}
	v.add(cmd, cli.JSON)
	return cmd
}
