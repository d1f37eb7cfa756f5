package waypoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// waypoints are those of a namespace, or of all when it is empty, by name.
func waypoints(ctx context.Context, mesh *reach.Mesh, namespace string) ([]unstructured.Unstructured, error) {
	found, err := mesh.List(ctx, reach.Gateway(), namespace)
	if errors.Is(err, reach.ErrNotFound) {
		return nil, errors.New("the cluster does not know the kind Gateway: install the Gateway API's definitions (istioctl manifest gateway-api)")
	}
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(o unstructured.Unstructured) bool { return !isWaypoint(&o) })
	slices.SortFunc(found, func(a, b unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return found, nil
}

// scope is the namespace to look at; empty for all.
func scope(mesh *reach.Mesh, all bool) string {
	if all {
		return ""
	}
	return mesh.Default
}

func list(g *cli.Globals) *cobra.Command {
	var all bool
	var output cli.Output
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show waypoints", Args: cobra.NoArgs,
		Example: "  istioctl waypoint list -A",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.Check(); err != nil {
				return err
			}
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			found, err := waypoints(cmd.Context(), mesh, scope(mesh, all))
			if err != nil {
				return err
			}
			if len(found) == 0 && output.IsTable() {
				fmt.Fprintln(cmd.OutOrStdout(), "No waypoints found.")
				return nil
			}
			return output.Print(cmd.OutOrStdout(), listTable(found, all), objects(found))
		},
	}
	output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	return cmd
}

func objects(found []unstructured.Unstructured) []any {
	out := []any{}
	for _, o := range found {
		out = append(out, o.Object)
	}
	return out
}

func listTable(found []unstructured.Unstructured, all bool) *dump.Table {
	t := &dump.Table{Columns: []string{"NAMESPACE", "NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED"}, Gap: 5}
	first := 0
	if !all {
		first = 1
	}
	for i := range found {
		o := &found[i]
		state := "False"
		if good, _ := programmed(o); good {
			state = "True"
		}
		row := []string{o.GetNamespace(), o.GetName(), revision(o), cmp.Or(o.GetLabels()[labelFor], "service"), state}
		t.Rows = append(t.Rows, row[first:])
	}
	t.Columns = t.Columns[first:]
	return t
}

func status(g *cli.Globals) *cobra.Command {
	var all, wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "status [NAME]", Short: "Show the conditions of waypoints, once they are ready", Args: cobra.MaximumNArgs(1),
		Example: "  istioctl waypoint status --namespace default\n  istioctl waypoint status -A --wait=false",
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			return showStatus(cmd, mesh, args, all, wait, timeout)
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	cmd.Flags().BoolVarP(&wait, "wait", "w", true, "wait until they are ready")
	cmd.Flags().DurationVar(&timeout, "waypoint-timeout", readyTimeout, "how long to wait for each")
	return cmd
}

func showStatus(cmd *cobra.Command, mesh *reach.Mesh, args []string, all, wait bool, timeout time.Duration) error {
	find := func() ([]unstructured.Unstructured, error) {
		found, err := waypoints(cmd.Context(), mesh, scope(mesh, all))
		if err == nil && len(args) == 1 {
			found = slices.DeleteFunc(found, func(o unstructured.Unstructured) bool { return o.GetName() != args[0] })
			if len(found) == 0 {
				err = fmt.Errorf("there is no waypoint %s; see istioctl waypoint list -A", args[0])
			}
		}
		return found, err
	}
	found, err := find()
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "No waypoints found.")
		return nil
	}
	var problems []error
	if wait {
		for i := range found {
			problems = append(problems, ready(cmd.Context(), mesh, found[i].GetNamespace(), found[i].GetName(), timeout, cmd.ErrOrStderr()))
		}
		if found, err = find(); err != nil {
			return err
		}
	}
	// Those that are not ready are what people want to see.
	if err := statusTable(found).Write(cmd.OutOrStdout(), true); err != nil {
		return err
	}
	return errors.Join(problems...)
}

func statusTable(found []unstructured.Unstructured) *dump.Table {
	t := &dump.Table{Columns: []string{"NAMESPACE", "NAME", "STATUS", "TYPE", "REASON", "MESSAGE"}, Gap: 5}
	for i := range found {
		o := &found[i]
		all := conditions(o)
		if len(all) == 0 {
			_, none := programmed(o)
			all = []condition{none}
		}
		for _, c := range all {
			t.Rows = append(t.Rows, []string{o.GetNamespace(), o.GetName(), c.Status, c.Type, c.Reason, c.Message})
		}
	}
	return t
}
