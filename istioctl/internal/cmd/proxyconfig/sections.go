package proxyconfig

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

// checkDirection is for flags of that name.
func checkDirection(direction string) error {
	switch direction {
	case "", "inbound", "outbound", "inbound-vip":
		return nil
	}
	return fmt.Errorf("--direction %q is none of inbound, outbound", direction)
}

func addClusterFilter(f *pflag.FlagSet, filter *dump.ClusterFilter) {
	f.StringVar(&filter.FQDN, "fqdn", "", "only clusters of this host, or of which this is a part")
	f.StringVar(&filter.Direction, "direction", "", "only clusters of this direction: inbound or outbound")
	f.StringVar(&filter.Subset, "subset", "", "only clusters of this subset")
}

func clusters(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var filter dump.ClusterFilter
	cmd := &cobra.Command{
		Use: "cluster POD", Aliases: []string{"clusters", "c"}, Short: "Show where a proxy can send requests",
		Example: "  istioctl proxy-config clusters deploy/waypoint --fqdn reviews.default.svc.cluster.local",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkDirection(filter.Direction); err != nil {
				return err
			}
			e, err := v.read(cmd, args, dumpPath)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), e.ClusterTable(filter), e.Clusters(filter))
		},
	}
	v.add(cmd, cli.Short)
	addClusterFilter(cmd.Flags(), &filter)
	cmd.Flags().IntVar(&filter.Port, "port", 0, "only clusters of this port")
	return cmd
}

// listenerView is which listeners are shown, and whether by chains.
type listenerView struct {
	dump.ListenerFilter
	waypoint bool
	chosen   func() bool // whether the flag was given
}

func (l *listenerView) add(f *pflag.FlagSet) {
	f.StringVar(&l.Type, "type", "", "only listeners of this type: HTTP, TCP, HTTP+TCP or UDP")
	f.BoolVar(&l.waypoint, "waypoint", false, "show the chains of a waypoint; its own dump is recognised")
	l.chosen = func() bool { return f.Changed("waypoint") }
}

func (l *listenerView) table(e *dump.Envoy) *dump.Table {
	if l.waypoint || !l.chosen() && e.IsWaypoint() && l.Verbose {
		return e.WaypointTable(l.ListenerFilter)
	}
	return e.ListenerTable(l.ListenerFilter)
}

func listeners(g *cli.Globals) *cobra.Command {
	v, l := &view{g: g}, &listenerView{}
	cmd := &cobra.Command{
		Use: "listener POD", Aliases: []string{"listeners", "l"}, Short: "Show what connections a proxy takes",
		Example: "  istioctl proxy-config listeners deploy/waypoint --waypoint",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := v.read(cmd, args, dumpPath)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), l.table(e), e.Listeners(l.ListenerFilter))
		},
	}
	v.add(cmd, cli.Short)
	l.add(cmd.Flags())
	cmd.Flags().StringVar(&l.Address, "address", "", "only listeners of this address")
	cmd.Flags().IntVar(&l.Port, "port", 0, "only listeners of this port")
	cmd.Flags().BoolVar(&l.Verbose, "verbose", true, "show matches and destinations")
	return cmd
}

func routes(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var filter dump.RouteFilter
	cmd := &cobra.Command{
		Use: "route POD", Aliases: []string{"routes", "r"}, Short: "Show how a proxy routes requests",
		Example: "  istioctl proxy-config routes deploy/waypoint --name 'inbound-vip|9080|http|reviews.default.svc.cluster.local' -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := v.read(cmd, args, dumpPath)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), e.RouteTable(filter), e.Routes(filter))
		},
	}
	v.add(cmd, cli.Short)
	cmd.Flags().StringVar(&filter.Name, "name", "", "only the route configuration of this name")
	cmd.Flags().BoolVar(&filter.Verbose, "verbose", true, "show each route")
	return cmd
}

func endpoints(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var filter dump.EndpointFilter
	cmd := &cobra.Command{
		Use: "endpoint POD", Aliases: []string{"endpoints", "ep"}, Short: "Show the endpoints of a proxy's clusters and their health",
		Example: "  istioctl proxy-config endpoints deploy/waypoint --cluster 'inbound-vip|9080|http|reviews.default.svc.cluster.local'",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := v.read(cmd, args, clustersPath)
			if err != nil {
				return err
			}
			if !e.HasEndpoints() {
				return fmt.Errorf("there are no endpoints in the dump: ask the proxy for %s or %s", clustersPath, edsPath)
			}
			return v.output.Print(cmd.OutOrStdout(), e.EndpointTable(filter), e.Endpoints(filter))
		},
	}
	v.add(cmd, cli.Short)
	f := cmd.Flags()
	f.StringVar(&filter.Cluster, "cluster", "", "only endpoints of this cluster")
	f.StringVar(&filter.Address, "address", "", "only endpoints of this address")
	f.StringVar(&filter.Status, "status", "", "only endpoints of this health, such as healthy or unhealthy")
	f.IntVar(&filter.Port, "port", 0, "only endpoints of this port")
	return cmd
}

func secrets(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	cmd := &cobra.Command{
		Use: "secret POD", Aliases: []string{"secrets", "s"}, Short: "Show the certificates of a proxy, without private keys",
		Example: "  istioctl proxy-config secret deploy/waypoint",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := v.read(cmd, args, dumpPath)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), e.SecretTable(time.Now()), e.Secrets())
		},
	}
	v.add(cmd, cli.Short)
	return cmd
}
