package proxyconfig

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

// filters are those of all sections; --port and --address count for several.
type filters struct {
	clusters    dump.ClusterFilter
	listeners   listenerView
	routes      dump.RouteFilter
	address     string
	port        int
	withHeaders bool
}

func all(g *cli.Globals) *cobra.Command {
	v, f := &view{g: g}, &filters{}
	cmd := &cobra.Command{
		Use: "all POD", Aliases: []string{"a"}, Short: "Show the whole configuration of a proxy",
		Example: "  istioctl proxy-config all deploy/waypoint --with-headers\n  istioctl proxy-config all deploy/waypoint -o json > dump.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkDirection(f.clusters.Direction); err != nil {
				return err
			}
			if !v.output.IsTable() {
				e, err := v.read(cmd, args, edsPath)
				if err != nil {
					return err
				}
				return cli.Encode(cmd.OutOrStdout(), v.output.Format, e.Whole())
			}
			e, err := v.read(cmd, args, dumpPath, clustersPath)
			if err != nil {
				return err
			}
			return f.print(cmd, e)
		},
	}
	v.add(cmd, cli.Short)
	flags := cmd.Flags()
	addClusterFilter(flags, &f.clusters)
	f.listeners.add(flags)
	flags.StringVar(&f.routes.Name, "name", "", "only the route configuration of this name")
	flags.StringVar(&f.address, "address", "", "only listeners and endpoints of this address")
	flags.IntVar(&f.port, "port", 0, "only clusters, listeners and endpoints of this port")
	flags.BoolVar(&f.routes.Verbose, "verbose", true, "show matches and destinations")
	flags.BoolVar(&f.withHeaders, "with-headers", false, "put a line with the name of the section above each")
	return cmd
}

func (f *filters) print(cmd *cobra.Command, e *dump.Envoy) error {
	f.clusters.Port, f.listeners.Port = f.port, f.port
	f.listeners.Address, f.listeners.Verbose = f.address, f.routes.Verbose
	sections := []struct {
		name  string
		table *dump.Table
	}{
		{"CLUSTERS", e.ClusterTable(f.clusters)},
		{"LISTENERS", f.listeners.table(e)},
		{"ROUTES", e.RouteTable(f.routes)},
		{"ENDPOINTS", e.EndpointTable(dump.EndpointFilter{Address: f.address, Port: f.port})},
		{"SECRETS", e.SecretTable(time.Now())},
	}
	out := cmd.OutOrStdout()
	for i, s := range sections {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if f.withHeaders {
			fmt.Fprintln(out, "====== "+s.name+" ======")
		}
		if err := s.table.Write(out, true); err != nil {
			return err
		}
	}
	return nil
}
