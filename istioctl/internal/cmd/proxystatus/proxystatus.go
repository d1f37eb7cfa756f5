// Package proxystatus has the command that shows how far each proxy has come with what the control plane sent.
package proxystatus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/control"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

type flags struct {
	g         *cli.Globals
	output    cli.Output
	verbosity int
	revision  string
	file      string
	port      int
	xds       control.Flags
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	f := &flags{g: g}
	cmd := &cobra.Command{
		Use: "proxy-status [POD]", Aliases: []string{"ps"}, Short: "Show whether proxies have what the control plane sent them",
		Long: "Show whether proxies have what the control plane sent them. With a proxy's name, what it has and what it should have are compared.\n\n" +
			"SYNCED: the proxy has taken over what was sent last. STALE: it has not answered yet. ERROR: it refuses it. NOT SENT: there was\n" +
			"nothing to send. IGNORED: it does not ask for this. A proxy that is not in the list is not connected.",
		Example: "  istioctl proxy-status -v 1\n  istioctl proxy-status deploy/waypoint\n" +
			"  istioctl proxy-status waypoint-7d9c-x2x.default --file config_dump.json\n  istioctl proxy-status --xds-address istiod.example.com:15012 --cert-dir ./certs",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.verbosity < 0 || f.verbosity > 1:
				return fmt.Errorf("--verbosity %d: there are 0 and 1", f.verbosity)
			case f.file != "" && len(args) == 0:
				return errors.New("--file has what a proxy has; name the proxy too")
			}
			if err := f.output.Check(); err != nil {
				return err
			}
			if len(args) == 1 {
				return f.compare(cmd, args[0])
			}
			return f.list(cmd)
		},
	}
	f.output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().IntVarP(&f.verbosity, "verbosity", "v", 0, "0: which types each proxy asks for; 1: how far it has come with each")
	cmd.Flags().StringVarP(&f.revision, "revision", "r", "", "revision of the control plane")
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "file with a configuration dump, to compare instead of the proxy's own, - for the standard input")
	cmd.Flags().IntVar(&f.port, "proxy-admin-port", reach.AdminPort, "port of the proxy's admin interface")
	f.xds.Add(cmd.Flags())
	return cmd
}

func (f *flags) source() control.Source { return control.Source{Globals: f.g, Revision: f.revision} }

// states are how far proxies have come, of a namespace or all.
func (f *flags) states(ctx context.Context, namespace string) ([]dump.Sync, error) {
	if f.xds.Used() {
		return f.xds.Syncs(ctx, f.source(), namespace)
	}
	mesh, err := f.g.Mesh()
	if err != nil {
		return nil, err
	}
	return f.read(ctx, mesh, namespace)
}

// read asks all instances of the control plane: each knows those that are connected to it.
func (f *flags) read(ctx context.Context, mesh *reach.Mesh, namespace string) ([]dump.Sync, error) {
	pods, err := mesh.Istiod(ctx, f.g.IstioNamespace, f.revision)
	if err != nil {
		return nil, err
	}
	path := "/debug/syncz"
	if namespace != "" {
		path += "?namespace=" + namespace
	}
	var out []dump.Sync
	for _, pod := range pods {
		data, err := mesh.Get(ctx, pod, reach.DebugPort, path)
		if err != nil {
			return nil, err
		}
		all, err := dump.ReadSync(data, pod.Name)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", path, pod, err)
		}
		out = append(out, all...)
	}
	return out, nil
}

func (f *flags) list(cmd *cobra.Command) error {
	all, err := f.states(cmd.Context(), f.g.Namespace)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if !f.output.IsTable() {
		if all == nil {
			all = []dump.Sync{}
		}
		return cli.Encode(out, f.output.Format, all)
	}
	table := dump.SyncTable(all)
	if f.verbosity == 1 {
		table = dump.SyncTypeTable(all, time.Now())
	}
	if err := table.Write(out, true); err != nil {
		return err
	}
	for _, why := range dump.Refusals(all) {
		fmt.Fprintf(out, "\n%s\n", why)
	}
	return nil
}
