package proxyconfig

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/loglevel"
)

func logs(g *cli.Globals) *cobra.Command {
	change := &loglevel.Change{}
	var selector string
	cmd := &cobra.Command{
		Use: "log POD...", Aliases: []string{"o"}, Short: "Show or set the log levels of proxies",
		Example: "  istioctl proxy-config log deploy/waypoint\n  istioctl proxy-config log deploy/waypoint --level http:debug,router:info\n" +
			"  istioctl proxy-config log -l gateway.networking.k8s.io/gateway-name=waypoint --level warning",
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 0) == (selector == "") {
				return errors.New("which proxies: name them, or select them by -l")
			}
			return change.Validate()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			pods, err := loglevel.Pods(cmd.Context(), mesh, args, selector)
			if err != nil {
				return err
			}
			var problems []error
			for _, pod := range pods {
				do := change.Envoy
				if pod.Labels["app"] == "ztunnel" {
					do = change.Ztunnel
				}
				problems = append(problems, do(cmd.Context(), mesh, pod, cmd.OutOrStdout()))
			}
			return errors.Join(problems...)
		},
	}
	change.Add(cmd)
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "labels of the pods")
	return cmd
}
