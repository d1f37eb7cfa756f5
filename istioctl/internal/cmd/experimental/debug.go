package experimental

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/control"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

func internalDebug(g *cli.Globals) *cobra.Command {
	var all, list bool
	var revision string
	var xds control.Flags
	cmd := &cobra.Command{
		Use: "internal-debug [PAGE]", Short: "Ask the control plane for a page of its debug interface", Args: cobra.MaximumNArgs(1),
		Example: "  istioctl x internal-debug --list\n  istioctl x internal-debug syncz\n  istioctl x internal-debug ambientz --all\n" +
			"  istioctl x internal-debug connections --xds-address istiod.example.com:15012 --cert-dir ./certs",
		RunE: func(cmd *cobra.Command, args []string) error {
			page := "list"
			if len(args) == 1 && !list {
				page = strings.TrimPrefix(strings.TrimPrefix(args[0], "/"), "debug/")
			}
			ask := func() ([]control.Page, error) { return pages(cmd.Context(), g, revision, page, all) }
			if xds.Used() {
				ask = func() ([]control.Page, error) {
					return xds.Pages(cmd.Context(), control.Source{Globals: g, Revision: revision}, page)
				}
			}
			found, err := ask()
			if err != nil {
				return fmt.Errorf("%w; see istioctl x internal-debug --list", err)
			}
			if !all {
				found = found[:min(len(found), 1)]
			}
			for _, p := range found {
				if len(found) > 1 {
					fmt.Fprintf(cmd.OutOrStdout(), "# %s\n", p.From)
				}
				// What is a document is shown without what is secret in it.
				if clean, err := dump.Redact(p.Text); err == nil {
					p.Text = clean
				}
				fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(string(p.Text), "\n"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "ask all instances of the control plane")
	cmd.Flags().BoolVar(&list, "list", false, "show which pages there are")
	cmd.Flags().StringVarP(&revision, "revision", "r", "", "revision of the control plane")
	xds.Add(cmd.Flags())
	return cmd
}

// pages asks the control plane's pods for a page.
func pages(ctx context.Context, g *cli.Globals, revision, page string, all bool) ([]control.Page, error) {
	mesh, err := g.Mesh()
	if err != nil {
		return nil, err
	}
	pods, err := mesh.Istiod(ctx, g.IstioNamespace, revision)
	if err != nil {
		return nil, err
	}
	if !all {
		pods = pods[:1]
	}
	var out []control.Page
	for _, pod := range pods {
		data, err := mesh.Get(ctx, pod, reach.DebugPort, "/debug/"+page)
		if err != nil {
			return nil, err
		}
		out = append(out, control.Page{From: pod.String(), Text: data})
	}
	return out, nil
}

func config() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Look at this program's settings",
		Example: "  istioctl x config list",
	}
	list := &cobra.Command{
		Use: "list", Short: "Show the settings that are in force: of flags, the environment and the file of settings", Args: cobra.NoArgs,
		Example: "  istioctl x config list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := &dump.Table{Columns: []string{"FLAG", "VALUE", "FROM"}, Gap: 3}
			for _, name := range []string{"kubeconfig", "context", "namespace", "istioNamespace", "as", "as-uid", "as-group", "vklog", "sandbox", "request-timeout"} {
				f := cmd.Flag(name)
				from := "default"
				if f.Changed {
					from = "flag, environment or file"
				}
				t.Rows = append(t.Rows, []string{name, f.Value.String(), from})
			}
			return t.Write(cmd.OutOrStdout(), true)
		},
	}
	cmd.AddCommand(list)
	return cli.Group(cmd)
}

// nonce is how far a proxy has come, as syncz tells.
type synced struct {
	Proxy     string `json:"proxy"`
	Resources map[string]struct {
		Sent  string `json:"sent"`
		Acked string `json:"acked"`
	} `json:"resources"`
}

// behind counts the proxies that have not acknowledged what was sent last.
func behind(data []byte) (names []string, all int, err error) {
	var proxies []synced
	if err := json.Unmarshal(data, &proxies); err != nil {
		return nil, 0, err
	}
	for _, p := range proxies {
		for _, r := range p.Resources {
			if r.Sent != r.Acked {
				names = append(names, p.Proxy)
				break
			}
		}
	}
	return names, len(proxies), nil
}
