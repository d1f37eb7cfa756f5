package ztunnelconfig

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/loglevel"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

func workloads(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var filter dump.WorkloadFilter
	cmd := &cobra.Command{
		Use: "workload [POD]", Aliases: []string{"workloads", "w"}, Short: "Show the workloads",
		Example: "  istioctl ztunnel-config workload --workload-namespace default",
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := v.read(cmd, args, false)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), z.WorkloadTable(filter), z.Workloads(filter))
		},
	}
	v.add(cmd)
	cmd.Flags().StringVar(&filter.Address, "address", "", "only the workload of this address")
	cmd.Flags().StringVar(&filter.Namespace, "workload-namespace", "", "only workloads of this namespace")
	cmd.Flags().StringVar(&filter.Node, "workload-node", "", "only workloads on this node")
	return cmd
}

func services(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var namespace string
	cmd := &cobra.Command{
		Use: "service [POD]", Aliases: []string{"services", "svc", "s"}, Short: "Show the services",
		Example: "  istioctl ztunnel-config service --service-namespace default",
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := v.read(cmd, args, false)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), z.ServiceTable(namespace), z.Services(namespace))
		},
	}
	v.add(cmd)
	cmd.Flags().StringVar(&namespace, "service-namespace", "", "only services of this namespace")
	return cmd
}

func policies(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var namespace string
	cmd := &cobra.Command{
		Use: "policy [POD]", Aliases: []string{"policies", "pol", "p"}, Short: "Show the authorization policies that ztunnel enforces",
		Example: "  istioctl ztunnel-config policy --policy-namespace default",
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := v.read(cmd, args, false)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), z.PolicyTable(namespace), z.Policies(namespace))
		},
	}
	v.add(cmd)
	cmd.Flags().StringVar(&namespace, "policy-namespace", "", "only policies of this namespace")
	return cmd
}

func certificates(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	cmd := &cobra.Command{
		Use: "certificate [POD]", Aliases: []string{"certificates", "cert", "certs"}, Short: "Show the certificates that ztunnel holds for pods of its node",
		Example: "  istioctl ztunnel-config certificate --node worker-1",
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := v.read(cmd, args, true)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), z.CertificateTable(time.Now()), z.Certificates())
		},
	}
	v.add(cmd)
	return cmd
}

func connections(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	var filter dump.ConnectionFilter
	cmd := &cobra.Command{
		Use: "connections [POD]", Aliases: []string{"connection", "cons"}, Short: "Show the open connections of pods in the mesh",
		Example: "  istioctl ztunnel-config connections --workload-namespace default --direction outbound",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch strings.ToLower(filter.Direction) {
			case "", "inbound", "outbound":
			default:
				return fmt.Errorf("--direction %q is none of inbound, outbound", filter.Direction)
			}
			z, err := v.read(cmd, args, true)
			if err != nil {
				return err
			}
			return v.output.Print(cmd.OutOrStdout(), z.ConnectionTable(filter), z.Connections(filter))
		},
	}
	v.add(cmd)
	cmd.Flags().StringVar(&filter.Direction, "direction", "", "only connections of this direction: inbound or outbound")
	cmd.Flags().StringVar(&filter.Namespace, "workload-namespace", "", "only connections of workloads of this namespace")
	cmd.Flags().BoolVar(&filter.Raw, "raw", false, "show addresses instead of names")
	return cmd
}

func all(g *cli.Globals) *cobra.Command {
	v := &view{g: g}
	cmd := &cobra.Command{
		Use: "all [POD]", Aliases: []string{"a"}, Short: "Show all that a ztunnel knows and does",
		Example: "  istioctl ztunnel-config all --node worker-1",
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := v.read(cmd, args, false)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if !v.output.IsTable() {
				return cli.Encode(out, v.output.Format, z.Whole())
			}
			for i, t := range []*dump.Table{
				z.WorkloadTable(dump.WorkloadFilter{}), z.ServiceTable(""), z.PolicyTable(""), z.CertificateTable(time.Now()), z.ConnectionTable(dump.ConnectionFilter{}),
			} {
				if i > 0 {
					fmt.Fprintln(out)
				}
				if err := t.Write(out, true); err != nil {
					return err
				}
			}
			return nil
		},
	}
	v.add(cmd)
	return cmd
}

func logs(g *cli.Globals) *cobra.Command {
	change := &loglevel.Change{}
	var node string
	cmd := &cobra.Command{
		Use: "log [POD]", Aliases: []string{"o"}, Short: "Show or set the log levels of ztunnels; of all unless one is named",
		Example: "  istioctl ztunnel-config log --node worker-1 --level access:debug",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := change.Validate(); err != nil {
				return err
			}
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			pods, err := find(cmd.Context(), g, mesh, args, node)
			if err != nil {
				return err
			}
			var problems []error
			for _, pod := range pods {
				problems = append(problems, change.Ztunnel(cmd.Context(), mesh, pod, cmd.OutOrStdout()))
			}
			return errors.Join(problems...)
		},
	}
	change.Add(cmd)
	cmd.Flags().StringVar(&node, "node", "", "the ztunnel of this node")
	return cmd
}
