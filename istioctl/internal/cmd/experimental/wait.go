package experimental

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// pause is between two questions whether proxies have everything.
const pause = 500 * time.Millisecond

func wait(g *cli.Globals) *cobra.Command {
	var condition, revision string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until all proxies have what the control plane sent last", Args: cobra.ArbitraryArgs,
		Long: "Wait until all proxies have acknowledged what the control plane sent them last, which is what it makes of the objects it knows now.\n" +
			"Objects may be named, as Istio's command demands; it is waited for everything.",
		Example: "  kubectl apply -f route.yaml && istioctl x wait --for=delivery",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if condition != "delivery" {
				return fmt.Errorf("--for %q: only delivery can be waited for", condition)
			}
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return delivered(ctx, cmd, g, mesh, revision, timeout)
		},
	}
	cmd.Flags().StringVar(&condition, "for", "delivery", "what to wait for: delivery")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	cmd.Flags().StringVarP(&revision, "revision", "r", "", "revision of the control plane")
	return cmd
}

func delivered(ctx context.Context, cmd *cobra.Command, g *cli.Globals, mesh *reach.Mesh, revision string, timeout time.Duration) error {
	pods, err := mesh.Istiod(ctx, g.IstioNamespace, revision)
	if err != nil {
		return ended(ctx, err, timeout, "")
	}
	last := ""
	for good := 0; good < 2; { // twice: what was written just now may not have been sent yet
		var late []string
		total := 0
		for _, pod := range pods {
			data, err := mesh.Get(ctx, pod, reach.DebugPort, "/debug/syncz")
			if err != nil {
				return ended(ctx, err, timeout, last)
			}
			names, all, err := behind(data)
			if err != nil {
				return fmt.Errorf("/debug/syncz of %s: %w", pod, err)
			}
			late, total = append(late, names...), total+all
		}
		if len(late) == 0 {
			if good++; good == 2 {
				fmt.Fprintf(cmd.OutOrStdout(), "All of %d proxies have what was sent last\n", total)
				return nil
			}
		} else {
			good, last = 0, strings.Join(late, ", ")
		}
		select {
		case <-ctx.Done():
			return ended(ctx, ctx.Err(), timeout, last)
		case <-time.After(pause):
		}
	}
	return nil
}

func ended(ctx context.Context, err error, timeout time.Duration, last string) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	if last == "" {
		return fmt.Errorf("after %s the control plane has not answered: %w", timeout, err)
	}
	return fmt.Errorf("after %s these have not acknowledged what was sent last: %s; see istioctl proxy-status", timeout, last)
}
