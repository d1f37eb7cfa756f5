package experimental

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

func authz(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "authz", Short: "Look at the authorization policies that proxies enforce",
		Example: "  istioctl x authz check deploy/waypoint",
	}
	cmd.AddCommand(authzCheck(g))
	return cli.Group(cmd)
}

func authzCheck(g *cli.Globals) *cobra.Command {
	var file string
	var port int
	var output cli.Output
	cmd := &cobra.Command{
		Use: "check [POD]", Short: "Show the authorization policies that are enforced for a pod",
		Long: "Show the authorization policies that are in force: of a waypoint, a gateway or a pod with a sidecar those of its own configuration, of\n" +
			"a ztunnel all it knows, and of another pod those that the ztunnel of its node enforces for it.",
		Example: "  istioctl x authz check deploy/waypoint\n  istioctl x authz check reviews-v1-7d9c-x2x.default\n  istioctl x authz check -f config_dump.json",
		Args: func(_ *cobra.Command, args []string) error {
			if (file == "") == (len(args) == 0) || len(args) > 1 {
				return errors.New("name a pod or --file with the configuration dump of a proxy, one of both")
			}
			return output.Check()
		},
		ValidArgsFunction: cli.CompletePods(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			var rules []dump.Rules
			var err error
			if file != "" {
				data, problem := cli.ReadFile(file, cmd.InOrStdin())
				if problem != nil {
					return problem
				}
				if rules, err = rulesOf(data, "", ""); err != nil {
					err = fmt.Errorf("%s: %w", file, err)
				}
			} else {
				rules, err = askRules(cmd.Context(), g, args[0], port)
			}
			if err != nil {
				return err
			}
			return output.Print(cmd.OutOrStdout(), dump.AuthorizationTable(rules), rules)
		},
	}
	output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the configuration dump of a proxy, - for the standard input")
	cmd.Flags().IntVar(&port, "proxy-admin-port", reach.AdminPort, "port of the proxy's admin interface")
	return cmd
}

// rulesOf reads the dump of any proxy; of a ztunnel's what is for a pod, if one is named.
func rulesOf(data []byte, namespace, name string) ([]dump.Rules, error) {
	if !dump.IsZtunnel(data) {
		e, err := dump.ReadEnvoy(data)
		if err != nil {
			return nil, err
		}
		return e.Authorization(), nil
	}
	z, err := dump.ReadZtunnel(data)
	if err != nil {
		return nil, err
	}
	return z.Authorization(namespace, name)
}

func askRules(ctx context.Context, g *cli.Globals, name string, port int) ([]dump.Rules, error) {
	mesh, err := g.Mesh()
	if err != nil {
		return nil, err
	}
	pod, err := mesh.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	data, own := mesh.Get(ctx, pod, port, "/config_dump")
	if own == nil && (dump.IsZtunnel(data) || dump.IsEnvoy(data)) {
		return rulesOf(data, "", "")
	}
	// It is no proxy: its node's decides.
	proxies, err := mesh.Pods(ctx, g.IstioNamespace, "app=ztunnel")
	if err != nil {
		return nil, err
	}
	for _, z := range proxies {
		if z.Node != pod.Node || !z.Ready {
			continue
		}
		data, err := mesh.Get(ctx, z, port, "/config_dump")
		if err != nil {
			return nil, err
		}
		return rulesOf(data, pod.Namespace, pod.Name)
	}
	return nil, fmt.Errorf("%s is no proxy (%w), and no ztunnel is ready on its node %s: nothing is enforced for it", pod, own, pod.Node)
}
