package experimental

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/describe"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/objects"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

func describeCommands(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe", Aliases: []string{"des"}, Short: "Say what the mesh does with a pod or a service",
		Long: "Say what the mesh does with a pod or a service: whether and by what it is in the mesh, by which proxies its traffic goes, who may\n" +
			"call it, how requests are routed, and how it is reached from outside.",
		Example: "  istioctl x describe pod deploy/productpage-v1\n  istioctl x describe service reviews.default",
	}
	cmd.AddCommand(describePod(g), describeService(g))
	return cli.Group(cmd)
}

func described(cmd *cobra.Command, g *cli.Globals, mesh *reach.Mesh) (*describe.Mesh, error) {
	set, err := objects.Read(cmd.Context(), mesh, g.IstioNamespace)
	if err != nil {
		return nil, err
	}
	for _, why := range set.Unread {
		fmt.Fprintln(cmd.ErrOrStderr(), "Warning: not taken into account:", why)
	}
	return describe.New(set.Settings, set.Objects)
}

func describePod(g *cli.Globals) *cobra.Command {
	var ignore bool
	cmd := &cobra.Command{
		Use: "pod POD", Aliases: []string{"po"}, Short: "Say what the mesh does with a pod", Args: cobra.ExactArgs(1),
		Example:           "  istioctl x describe pod productpage-v1-7d9c-x2x\n  istioctl x describe pod deploy/reviews-v2.default",
		ValidArgsFunction: cli.CompletePods(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			pod, err := mesh.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			all, err := described(cmd, g, mesh)
			if err != nil {
				return err
			}
			return all.Pod(cmd.OutOrStdout(), pod.Namespace, pod.Name, nodeOf(cmd.Context(), g, mesh, pod), ignore)
		},
	}
	cmd.Flags().BoolVar(&ignore, "ignoreUnmeshed", false, "do not warn of a pod that is not in the mesh")
	return cmd
}

// nodeOf asks the pod's node proxy about it.
func nodeOf(ctx context.Context, g *cli.Globals, mesh *reach.Mesh, pod reach.Pod) describe.Node {
	var out describe.Node
	all, err := mesh.Pods(ctx, g.IstioNamespace, "app=ztunnel")
	if err != nil {
		return describe.Node{Problem: err.Error()}
	}
	for _, z := range all {
		if z.Node != pod.Node {
			continue
		}
		out = describe.Node{Ztunnel: z.String(), Ready: z.Ready}
		data, err := mesh.Get(ctx, z, reach.AdminPort, "/config_dump")
		if err == nil {
			var parsed *dump.Ztunnel
			if parsed, err = dump.ReadZtunnel(data); err == nil {
				out.Asked = true
				out.Protocol, out.Waypoint, out.Knows = parsed.Find(pod.Namespace, pod.Name)
			}
		}
		if err != nil {
			out.Problem = err.Error()
		}
		if z.Ready {
			break
		}
	}
	return out
}

func describeService(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use: "service SERVICE", Aliases: []string{"svc"}, Short: "Say what the mesh does with a service", Args: cobra.ExactArgs(1),
		Example: "  istioctl x describe service reviews\n  istioctl x describe svc reviews.default",
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			all, err := described(cmd, g, mesh)
			if err != nil {
				return err
			}
			name, namespace, _ := strings.Cut(strings.TrimPrefix(args[0], "svc/"), ".")
			return all.Service(cmd.OutOrStdout(), cmp.Or(namespace, mesh.Default), name)
		},
	}
}
