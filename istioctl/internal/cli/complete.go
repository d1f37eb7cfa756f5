package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// completion is how long a shell waits for names, and atMost how many it is shown.
const (
	completionTime = 2 * time.Second
	atMost         = 200
)

// Completer proposes arguments.
type Completer func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective)

// complete proposes the names that begin as what is typed; none when the mesh does not answer soon.
func complete(g *Globals, names func(context.Context, *reach.Mesh) ([]string, error)) Completer {
	return func(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
		const files = cobra.ShellCompDirectiveNoFileComp
		if g.lookup != nil {
			_ = FromEnvironment(cmd.Flags(), g.lookup) // what cannot be set completes nothing
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		mesh, err := g.Mesh()
		if err != nil {
			return nil, files
		}
		all, err := names(ctx, mesh)
		if err != nil {
			return nil, files
		}
		slices.Sort(all)
		all = slices.DeleteFunc(slices.Compact(all), func(name string) bool { return !strings.HasPrefix(name, begin) })
		return all[:min(len(all), atMost)], files
	}
}

// CompletePods proposes the pods of the namespace.
func CompletePods(g *Globals) Completer {
	return complete(g, func(ctx context.Context, mesh *reach.Mesh) ([]string, error) {
		pods, err := mesh.Pods(ctx, mesh.Default, "")
		var out []string
		for _, p := range pods {
			out = append(out, p.Name)
		}
		return out, err
	})
}

// CompleteNamespaces proposes namespaces.
func CompleteNamespaces(g *Globals) Completer {
	return complete(g, func(ctx context.Context, mesh *reach.Mesh) ([]string, error) {
		return list(ctx, mesh, reach.Namespace(), "")
	})
}

// CompleteGateways proposes the gateways and waypoints of the namespace.
func CompleteGateways(g *Globals) Completer {
	return complete(g, func(ctx context.Context, mesh *reach.Mesh) ([]string, error) {
		return list(ctx, mesh, reach.Gateway(), mesh.Default)
	})
}

func list(ctx context.Context, mesh *reach.Mesh, kind reach.Kind, namespace string) ([]string, error) {
	all, err := mesh.List(ctx, kind, namespace)
	var out []string
	for _, o := range all {
		out = append(out, o.GetName())
	}
	return out, err
}

// AddCompletion gives the commands below one that take a pod, and have no completion of their own, that of pods; and the flag for the
// namespace that of namespaces. lookup is the environment.
func AddCompletion(cmd *cobra.Command, g *Globals, lookup func(string) (string, bool)) {
	g.lookup = lookup
	if cmd.PersistentFlags().Lookup("namespace") != nil {
		_ = cmd.RegisterFlagCompletionFunc("namespace", CompleteNamespaces(g)) // an error if it is not there, or has one
	}
	_, arguments, _ := strings.Cut(cmd.Use, " ")
	switch {
	case cmd.ValidArgsFunction != nil:
	case strings.Contains(arguments, "POD"):
		cmd.ValidArgsFunction = CompletePods(g)
	case cmd.HasParent() && cmd.Parent().Name() == "waypoint" && strings.Contains(arguments, "NAME"):
		cmd.ValidArgsFunction = CompleteGateways(g)
	}
	for _, sub := range cmd.Commands() {
		AddCompletion(sub, g, lookup)
	}
}
