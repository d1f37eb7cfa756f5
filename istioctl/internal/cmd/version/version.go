// Package version has the command version.
package version

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/control"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// report is what the command prints with -o.
type report struct {
	Client *telemetry.Build `json:"clientVersion,omitempty"`
	Mesh   []component      `json:"meshVersion,omitempty"`
	Data   []proxy          `json:"dataPlaneVersion,omitempty"`
}

// component is one control plane pod.
type component struct {
	Component string          `json:"Component"`
	Revision  string          `json:"Revision,omitempty"`
	Info      telemetry.Build `json:"Info"`
}

// proxy is one connected proxy.
type proxy struct {
	ID      string `json:"ID"`
	Version string `json:"IstioVersion"`
	Type    string `json:"Type,omitempty"`
}

type flags struct {
	remote           bool
	output, revision string
	xds              control.Flags
}

// New returns the command.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of this program, the control plane and the proxies", Args: cobra.NoArgs,
		Example: "  istioctl version\n  istioctl version --remote=false -o yaml\n  istioctl version --xds-address localhost:15010 --plaintext",
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, g, build) },
	}
	// Without -o the output is short anyhow.
	cmd.Flags().BoolP("short", "s", false, "print versions only")
	cmd.Flags().BoolVar(&f.remote, "remote", true, "ask the cluster too")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "yaml or json")
	cmd.Flags().StringVarP(&f.revision, "revision", "r", "", "revision of the control plane")
	f.xds.Add(cmd.Flags())
	return cmd
}

func (f *flags) run(cmd *cobra.Command, g *cli.Globals, build telemetry.Build) error {
	r := report{Client: &build}
	var remote error
	switch {
	case f.remote && f.xds.Used():
		remote = r.askByXDS(cmd.Context(), &f.xds, control.Source{Globals: g, Revision: f.revision})
	case f.remote:
		remote = r.ask(cmd.Context(), g, f.revision)
	}
	out := cmd.OutOrStdout()
	switch f.output {
	case "":
		r.print(out)
	case "yaml", "json":
		if err := r.encode(out, f.output); err != nil {
			return err
		}
	default:
		return fmt.Errorf("--output %q is none of yaml, json", f.output)
	}
	// The client's version is what was asked for most; a cluster that is away is no failure.
	if remote != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "control plane: %v\n", remote)
	}
	return nil
}

// ask fills in what the mesh knows.
func (r *report) ask(ctx context.Context, g *cli.Globals, revision string) error {
	mesh, err := g.Mesh()
	if err != nil {
		return err
	}
	pods, err := mesh.Istiod(ctx, g.IstioNamespace, revision)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		data, err := mesh.Get(ctx, pod, reach.MonitoringPort, "/version")
		if err != nil {
			return err
		}
		c := component{Component: pod.Name}
		if json.Unmarshal(data, &c.Info) != nil {
			c.Info = telemetry.Build{Version: strings.TrimSpace(string(data))}
		}
		r.Mesh = append(r.Mesh, c)
		if data, err = mesh.Get(ctx, pod, reach.DebugPort, "/debug/syncz"); err != nil {
			return err
		}
		if err := r.proxies(data); err != nil {
			return fmt.Errorf("/debug/syncz of %s: %w", pod, err)
		}
	}
	return nil
}

// askByXDS fills in what the control plane tells of itself and its proxies.
func (r *report) askByXDS(ctx context.Context, xds *control.Flags, source control.Source) error {
	answers, err := xds.Ask(ctx, source, control.SynczType)
	if err != nil {
		return err
	}
	for _, a := range answers {
		r.Mesh = append(r.Mesh, component{Component: a.Component, Revision: source.Revision, Info: a.Info})
		all, err := a.Syncs()
		if err != nil {
			return err
		}
		for _, s := range all {
			r.Data = append(r.Data, proxy{ID: s.Name, Type: s.ProxyType, Version: cmp.Or(s.Version, "unknown")})
		}
	}
	return nil
}

func (r *report) proxies(data []byte) error {
	var connected []struct {
		Proxy   string `json:"proxy"`
		Type    string `json:"proxy_type"`
		Version string `json:"istio_version"`
	}
	if err := json.Unmarshal(data, &connected); err != nil {
		return err
	}
	for _, c := range connected {
		r.Data = append(r.Data, proxy{ID: c.Proxy, Type: c.Type, Version: cmp.Or(c.Version, "unknown")})
	}
	return nil
}

func (r *report) print(out io.Writer) {
	fmt.Fprintln(out, "client version:", r.Client.Version)
	versions := map[string]int{}
	for _, c := range r.Mesh {
		versions[c.Info.Version]++
	}
	for _, v := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintln(out, "control plane version:", v)
	}
	if len(r.Mesh) == 0 {
		return
	}
	proxies := map[string]int{}
	for _, p := range r.Data {
		proxies[p.Version]++
	}
	if len(proxies) == 0 {
		fmt.Fprintln(out, "data plane version: none")
		return
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(proxies)) {
		word := "proxies"
		if proxies[v] == 1 {
			word = "proxy"
		}
		parts = append(parts, fmt.Sprintf("%s (%d %s)", v, proxies[v], word))
	}
	fmt.Fprintln(out, "data plane version:", strings.Join(parts, ", "))
}

func (r *report) encode(out io.Writer, format string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil && format == "yaml" {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.TrimRight(string(data), "\n"))
	return err
}
