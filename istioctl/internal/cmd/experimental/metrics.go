package experimental

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// asked is a workload whose metrics are asked for.
type asked struct{ name, namespace string }

// measured is what was found out about it.
type measured struct {
	Workload  string        `json:"workload"`
	Total     float64       `json:"totalRPS"`
	Errors    float64       `json:"errorRPS"`
	P50       time.Duration `json:"p50Latency"`
	P90       time.Duration `json:"p90Latency"`
	P99       time.Duration `json:"p99Latency"`
	Connected float64       `json:"connectionsPerSecond,omitempty"`
}

func metrics(g *cli.Globals) *cobra.Command {
	var duration time.Duration
	var output cli.Output
	cmd := &cobra.Command{
		Use: "metrics WORKLOAD...", Aliases: []string{"m"}, Short: "Show requests, failures and latencies of workloads", Args: cobra.MinimumNArgs(1),
		Long: "Show the requests to workloads, how many failed and how long they took: from Prometheus if it is installed, and otherwise from the\n" +
			"metrics of waypoints and gateways themselves, over a few seconds. Of workloads without a waypoint only connections are known.",
		Example: "  istioctl x metrics reviews-v1\n  istioctl x metrics reviews-v1.default productpage-v1.default -d 5m",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.Check(); err != nil {
				return err
			}
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			var wanted []asked
			for _, arg := range args {
				name, namespace, _ := strings.Cut(arg, ".")
				wanted = append(wanted, asked{name, cmp.Or(namespace, mesh.Default)})
			}
			found, err := measure(cmd, g, mesh, wanted, duration)
			if err != nil {
				return err
			}
			if err := output.Print(cmd.OutOrStdout(), metricsTable(found), found); err != nil {
				return err
			}
			for _, m := range found {
				if m.Total == 0 && m.Connected > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: no requests were seen, but %.3f connections a second: only a waypoint sees requests (istioctl waypoint apply)\n", m.Workload, m.Connected)
				}
			}
			return nil
		},
	}
	output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().DurationVarP(&duration, "duration", "d", 0, "time to look at (default 1m of Prometheus, 5s otherwise)")
	return cmd
}

func metricsTable(all []measured) *dump.Table {
	t := &dump.Table{Columns: []string{"WORKLOAD", "TOTAL RPS", "ERROR RPS", "P50 LATENCY", "P90 LATENCY", "P99 LATENCY"}, Gap: 4}
	for _, m := range all {
		t.Rows = append(t.Rows, []string{
			m.Workload, fmt.Sprintf("%.3f", m.Total), fmt.Sprintf("%.3f", m.Errors),
			m.P50.Round(time.Millisecond / 10).String(), m.P90.Round(time.Millisecond / 10).String(), m.P99.Round(time.Millisecond / 10).String(),
		})
	}
	return t
}

func measure(cmd *cobra.Command, g *cli.Globals, mesh *reach.Mesh, wanted []asked, duration time.Duration) ([]measured, error) {
	ctx := cmd.Context()
	server, err := prometheus(ctx, g, mesh)
	if err != nil {
		return nil, err
	}
	if server != nil {
		return query(ctx, mesh, *server, wanted, cmp.Or(duration, time.Minute))
	}
	duration = cmp.Or(duration, 5*time.Second)
	fmt.Fprintf(cmd.ErrOrStderr(), "No Prometheus runs in namespace %s: measured at the proxies, for %s.\n", g.IstioNamespace, duration)
	return sample(cmd, g, mesh, wanted, duration)
}

// prometheus is the pod of the server; nil when there is none.
func prometheus(ctx context.Context, g *cli.Globals, mesh *reach.Mesh) (*reach.Pod, error) {
	for _, selector := range []string{"app.kubernetes.io/name=prometheus", "app=prometheus"} {
		pods, err := mesh.Pods(ctx, g.IstioNamespace, selector)
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			if p.Ready {
				return &p, nil
			}
		}
	}
	return nil, nil
}
