package waypoints

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

func remove(g *cli.Globals) *cobra.Command {
	var all bool
	var rev string
	cmd := &cobra.Command{
		Use: "delete [NAME...]", Short: "Delete waypoints",
		Example: "  istioctl waypoint delete waypoint --namespace default\n  istioctl waypoint delete --all --namespace default",
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 0) == !all {
				return errors.New("name the waypoints, or delete all of the namespace by --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			names := args
			if all {
				if names, err = waypointNames(cmd, mesh, rev); err != nil {
					return err
				}
				if len(names) == 0 {
					fmt.Fprintf(cmd.OutOrStdout(), "No waypoints found in namespace %s.\n", mesh.Default)
					return nil
				}
			}
			return deleteAll(cmd, mesh, names, rev)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all waypoints of the namespace")
	cmd.Flags().StringVarP(&rev, "revision", "r", "", "only waypoints of this revision")
	return cmd
}

func waypointNames(cmd *cobra.Command, mesh *reach.Mesh, rev string) ([]string, error) {
	found, err := waypoints(cmd.Context(), mesh, mesh.Default)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range found {
		if rev == "" || revision(&found[i]) == rev {
			names = append(names, found[i].GetName())
		}
	}
	return names, nil
}

// deleteAll deletes each; what fails for one keeps no other from its turn.
func deleteAll(cmd *cobra.Command, mesh *reach.Mesh, names []string, rev string) error {
	var problems []error
	for _, name := range names {
		o, err := mesh.Read(cmd.Context(), reach.Gateway(), mesh.Default, name)
		switch {
		case err == nil && !isWaypoint(o):
			err = fmt.Errorf("gateway %s/%s is no waypoint; delete it by kubectl", mesh.Default, name)
		case err == nil && rev != "" && revision(o) != rev:
			err = fmt.Errorf("waypoint %s/%s is of revision %s, not of %s", mesh.Default, name, revision(o), rev)
		case err == nil:
			err = mesh.Delete(cmd.Context(), reach.Gateway(), mesh.Default, name)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "waypoint %s/%s deleted\n", mesh.Default, name)
	}
	return errors.Join(problems...)
}
