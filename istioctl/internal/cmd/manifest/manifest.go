// Package manifest has the commands that print what an installation consists of.
package manifest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/operator/crds"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// New returns the command.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	cmd := &cobra.Command{Use: "manifest", Example: "  istioctl manifest generate --set profile=ambient | kubectl apply --server-side -f -", Short: "Print what an installation consists of"}
	cmd.AddCommand(generate(g, build), translate(g, build), gatewayAPI())
	return cmd
}

type flags struct {
	cli.Installation
	out             string
	filter          []string
	clusterSpecific bool
}

func generate(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "generate", Short: "Print the objects of an installation as YAML", Args: cobra.NoArgs,
		Example: "  istioctl manifest generate --set profile=ambient | kubectl apply --server-side -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			what, err := f.render(cmd, g, build)
			if err != nil {
				return err
			}
			return f.write(cmd, what)
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "directory to write a file for each component to, instead of the standard output")
	cmd.Flags().StringSliceVar(&f.filter, "filter", nil, "components to print: "+
		"Base, Pilot, Cni, Ztunnel, IngressGateways, EgressGateways")
	cmd.Flags().BoolVar(&f.clusterSpecific, "cluster-specific", false, "ask the cluster for its version")
	return cmd
}

func (f *flags) render(cmd *cobra.Command, g *cli.Globals, build telemetry.Build) (*render.Installation, error) {
	op, err := f.Read(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	options := f.RenderOptions(build, g)
	if f.clusterSpecific {
		cluster, err := g.Connect()
		if err != nil {
			return nil, err
		}
		if options.KubeVersion, err = cluster.Version(); err != nil {
			return nil, err
		}
	}
	return render.Render(op, options)
}

func (f *flags) write(cmd *cobra.Command, what *render.Installation) error {
	for _, component := range what.Components {
		if len(f.filter) > 0 && !slices.Contains(f.filter, component.Name) {
			continue
		}
		var b bytes.Buffer
		for _, u := range component.Objects {
			data, err := yaml.Marshal(u.Object)
			if err != nil {
				return err
			}
			b.WriteString("---\n")
			b.Write(data)
		}
		if f.out == "" {
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(f.out, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(f.out, component.Name+".yaml"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// gatewayAPI prints the definitions that Istio's installation leaves to the user.
func gatewayAPI() *cobra.Command {
	return &cobra.Command{
		Use: "gateway-api", Short: "Print the definitions of the Gateway API's kinds", Args: cobra.NoArgs,
		Example: "  istioctl manifest gateway-api | kubectl apply --server-side -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(crds.GatewayAPI)
			return err
		},
	}
}

// translate prints the commands of Helm that install the same.
func translate(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "translate", Example: "  istioctl manifest translate --set profile=ambient -o helm",
		Short: "Write Helm values for an installation, and print the commands that use them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			op, err := f.Read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			releases, err := render.Releases(op, f.RenderOptions(build, g))
			if err != nil {
				return err
			}
			dir := f.out
			if dir == "" {
				dir = "."
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for _, r := range releases {
				data, err := yaml.Marshal(r.Values)
				if err != nil {
					return err
				}
				file := filepath.Join(dir, r.Name+".values.yaml")
				if err := os.WriteFile(file, data, 0o644); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "helm upgrade --install %s CHARTS/%s --create-namespace --namespace %s --values %s --wait\n", r.Name, r.Chart, r.Namespace, file)
				for _, lost := range r.Lost {
					fmt.Fprintf(cmd.OutOrStdout(), "# Helm has no value for %s\n", lost)
				}
			}
			return nil
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "directory to write the values to")
	return cmd
}
