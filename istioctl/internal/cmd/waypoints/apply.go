package waypoints

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// readyTimeout is what a waypoint may take: an image may have to be pulled.
const readyTimeout = 90 * time.Second

type applyFlags struct {
	spec
	enroll, overwrite, wait bool
	timeout                 time.Duration
}

func apply(g *cli.Globals) *cobra.Command {
	f := &applyFlags{}
	cmd := &cobra.Command{
		Use: "apply", Short: "Make a waypoint, or change it", Args: cobra.NoArgs,
		Example: "  istioctl waypoint apply --namespace default --enroll-namespace --wait",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			return f.run(cmd, mesh)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&f.enroll, "enroll-namespace", false, "let the whole namespace use it")
	cmd.Flags().BoolVar(&f.overwrite, "overwrite", false, "let a namespace that uses another waypoint use this one")
	cmd.Flags().BoolVarP(&f.wait, "wait", "w", false, "wait until it is ready")
	cmd.Flags().DurationVar(&f.timeout, "waypoint-timeout", readyTimeout, "how long to wait")
	return cmd
}

func (f *applyFlags) run(cmd *cobra.Command, mesh *reach.Mesh) error {
	ctx, out, namespace := cmd.Context(), cmd.OutOrStdout(), mesh.Default
	if f.enroll {
		// Before anything is changed.
		if err := f.mayEnroll(ctx, mesh, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	existing, err := mesh.Read(ctx, reach.Gateway(), namespace, f.name)
	switch {
	case err == nil && !isWaypoint(existing):
		return fmt.Errorf("gateway %s/%s is there and no waypoint; choose another --name", namespace, f.name)
	case err != nil && !errors.Is(err, reach.ErrNotFound):
		return err
	}
	if err := mesh.Apply(ctx, reach.Gateway(), f.gateway(namespace)); err != nil {
		if errors.Is(err, reach.ErrNotFound) {
			return fmt.Errorf("%w; does the namespace exist, and are the Gateway API's definitions installed (istioctl manifest gateway-api)?", err)
		}
		return err
	}
	fmt.Fprintf(out, "waypoint %s/%s applied\n", namespace, f.name)
	if f.wait {
		if err := ready(ctx, mesh, namespace, f.name, f.timeout, cmd.ErrOrStderr()); err != nil {
			return err
		}
		fmt.Fprintf(out, "waypoint %s/%s is ready!\n", namespace, f.name)
	}
	if !f.enroll {
		return nil
	}
	if err := mesh.Label(ctx, reach.Namespace(), "", namespace, map[string]*string{labelUse: &f.name}); err != nil {
		return err
	}
	fmt.Fprintf(out, "namespace %s labeled with \"%s: %s\"\n", namespace, labelUse, f.name)
	return nil
}

// mayEnroll refuses to take a namespace from another waypoint, and warns of one that is not in the mesh.
func (f *applyFlags) mayEnroll(ctx context.Context, mesh *reach.Mesh, warnings io.Writer) error {
	o, err := mesh.Read(ctx, reach.Namespace(), "", mesh.Default)
	if err != nil {
		return err
	}
	if other := o.GetLabels()[labelUse]; other != "" && other != f.name && !f.overwrite {
		return fmt.Errorf("namespace %s uses waypoint %q already (label %s); let it use %q by --overwrite", mesh.Default, other, labelUse, f.name)
	}
	if o.GetLabels()[labelAmbient] != "ambient" {
		fmt.Fprintf(warnings, "Warning: namespace %s is not in the mesh: the waypoint serves only what others in the mesh send to it; label it with %s=ambient\n",
			mesh.Default, labelAmbient)
	}
	return nil
}

// between is the time between two looks at a waypoint that is awaited.
const between = 500 * time.Millisecond

// ready waits for a waypoint, and says what for.
func ready(ctx context.Context, mesh *reach.Mesh, namespace, name string, timeout time.Duration, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(between)
	defer tick.Stop()
	said := ""
	for {
		o, err := mesh.Read(ctx, reach.Gateway(), namespace, name)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			good, why := programmed(o)
			if good {
				return nil
			}
			if text := fmt.Sprintf("waiting for waypoint %s/%s: %s %s: %s", namespace, name, why.Type, why.Reason, why.Message); text != said {
				said = text
				fmt.Fprintln(progress, text)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waypoint %s/%s is not ready after %s (%s): look at its conditions by istioctl waypoint status, and at its pods by kubectl describe",
				namespace, name, timeout, said)
		}
	}
}
