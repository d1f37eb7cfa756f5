package proxyconfig

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

func extensions(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	cmd := &cobra.Command{
		Use: "ecds POD", Short: "Show the filters that a proxy gets by name",
		Example: "  istioctl proxy-config ecds deploy/istio-ingressgateway -n istio-system",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := v.read(cmd, args, dumpPath)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), e.ExtensionTable(), e.Extensions())
		},
	}
	v.add(cmd, cli.Short)
	return cmd
}

func compareRoots(g *cli.Globals) *cobra.Command {
	var port int
	cmd := &cobra.Command{
		Use: "rootca-compare POD POD", Aliases: []string{"rc"}, Short: "Show whether two proxies trust the same roots", Args: cobra.ExactArgs(2),
		Example: "  istioctl proxy-config rootca-compare deploy/waypoint deploy/istio-ingressgateway.istio-system",
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			var names []string
			var roots [][]string
			for _, name := range args {
				pod, err := mesh.Find(cmd.Context(), name)
				if err != nil {
					return err
				}
				data, err := mesh.Get(cmd.Context(), pod, port, dumpPath)
				if err != nil {
					return err
				}
				e, err := dump.ReadEnvoy(data)
				if err != nil {
					return fmt.Errorf("what %s answers: %w", pod, err)
				}
				if len(e.Roots()) == 0 {
					return fmt.Errorf("%s has no root certificate: it does not reach the control plane, or speaks no TLS", pod)
				}
				names, roots = append(names, pod.String()), append(roots, e.Roots())
			}
			if !slices.Equal(roots[0], roots[1]) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s and %s have different ROOTCA: they cannot speak TLS with each other\n", names[0], names[1])
				return errors.New("the roots differ")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Both %s and %s have identical ROOTCA\n", names[0], names[1])
			return nil
		},
	}
	cmd.Flags().IntVar(&port, "proxy-admin-port", reach.AdminPort, "port of the proxy's admin interface")
	return cmd
}
