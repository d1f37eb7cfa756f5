// Package ztunnelconfig has the commands that show what node proxies know and do.
package ztunnelconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// selector is that of the node proxies' pods.
const selector = "app=ztunnel"

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ztunnel-config", Aliases: []string{"zc"}, Short: "Show what ztunnel, the node proxy, knows and does",
		Long: "Show what ztunnel, the node proxy, knows and does: from a cluster, from a sandbox, or from a file. A pod that is none stands for the\n" +
			"ztunnel of its node. Without a name, workloads, services and policies are of one ztunnel, as all have the same, and certificates and\n" +
			"connections of all.",
		Example: "  istioctl ztunnel-config workload\n  istioctl ztunnel-config certificate --node worker-1\n  istioctl ztunnel-config connections deploy/reviews-v1",
	}
	cmd.AddCommand(workloads(g), services(g), policies(g), certificates(g), connections(g), logs(g), all(g))
	return cli.Group(cmd)
}

// view is what the commands have in common: whose dump, and how it is printed.
type view struct {
	g      *cli.Globals
	file   string
	node   string
	port   int
	output cli.Output
}

func (v *view) add(cmd *cobra.Command) {
	v.output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().StringVarP(&v.file, "file", "f", "", "file with the answer of a ztunnel to look at instead of one, - for the standard input")
	cmd.Flags().StringVar(&v.node, "node", "", "the ztunnel of this node")
	cmd.Flags().IntVar(&v.port, "proxy-admin-port", reach.AdminPort, "port of the proxy's admin interface")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		sources := len(args)
		for _, s := range []string{v.file, v.node} {
			if s != "" {
				sources++
			}
		}
		if sources > 1 {
			return errors.New("name one: a pod, --node or --file")
		}
		return v.output.Check()
	}
}

// read returns the dump; everywhere says that those of all nodes count when none is named.
func (v *view) read(cmd *cobra.Command, args []string, everywhere bool) (*dump.Ztunnel, error) {
	if v.file != "" {
		data, err := cli.ReadFile(v.file, cmd.InOrStdin())
		if err != nil {
			return nil, err
		}
		z, err := dump.ReadZtunnel(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.file, err)
		}
		return z, nil
	}
	mesh, err := v.g.Mesh()
	if err != nil {
		return nil, err
	}
	pods, err := find(cmd.Context(), v.g, mesh, args, v.node)
	if err != nil {
		return nil, err
	}
	if !everywhere {
		// One that is ready knows everything.
		pods = pods[:1]
	}
	return v.gather(cmd, mesh, pods)
}

// find returns the ztunnels that are named: by a pod, by that of a pod on its node, by the node; or all.
func find(ctx context.Context, g *cli.Globals, mesh *reach.Mesh, args []string, node string) ([]reach.Pod, error) {
	if len(args) == 1 {
		// A ztunnel is named without its namespace too.
		pod, err := mesh.Find(ctx, args[0])
		if err != nil && mesh.Default != g.IstioNamespace {
			there := *mesh
			there.Default = g.IstioNamespace
			if found, none := there.Find(ctx, args[0]); none == nil {
				pod, err = found, nil
			}
		}
		if err != nil || pod.Labels["app"] == "ztunnel" {
			return []reach.Pod{pod}, err
		}
		node = pod.Node
	}
	pods, err := mesh.Pods(ctx, g.IstioNamespace, selector)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(pods, func(a, b reach.Pod) int {
		switch {
		case a.Ready == b.Ready:
			return 0
		case a.Ready:
			return -1
		}
		return 1
	})
	if node != "" {
		pods = slices.DeleteFunc(pods, func(p reach.Pod) bool { return p.Node != node })
	}
	switch {
	case len(pods) == 0 && node != "":
		return nil, fmt.Errorf("no ztunnel runs on node %q", node)
	case len(pods) == 0:
		return nil, fmt.Errorf("no ztunnel runs in namespace %q (pods with %s): name its namespace by --istioNamespace", g.IstioNamespace, selector)
	}
	return pods, nil
}

// together is how many proxies are asked at a time.
const together = 8

// gather reads the dumps of pods, and merges them into that of the first. One that does not answer does not hide the others.
func (v *view) gather(cmd *cobra.Command, mesh *reach.Mesh, pods []reach.Pod) (*dump.Ztunnel, error) {
	dumps, problems := make([]*dump.Ztunnel, len(pods)), make([]error, len(pods))
	var running sync.WaitGroup
	slots := make(chan struct{}, together)
	for i, pod := range pods {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			dumps[i], problems[i] = v.one(cmd.Context(), mesh, pod)
		})
	}
	running.Wait()
	answered := slices.DeleteFunc(dumps, func(z *dump.Ztunnel) bool { return z == nil })
	if len(answered) == 0 {
		return nil, errors.Join(problems...)
	}
	for _, err := range problems {
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "Warning:", err)
		}
	}
	for _, other := range answered[1:] {
		answered[0].Merge(other)
	}
	return answered[0], nil
}

func (v *view) one(ctx context.Context, mesh *reach.Mesh, pod reach.Pod) (*dump.Ztunnel, error) {
	data, err := mesh.Get(ctx, pod, v.port, "/config_dump")
	if err != nil {
		return nil, err
	}
	z, err := dump.ReadZtunnel(data)
	if err != nil {
		return nil, fmt.Errorf("what %s answers: %w", pod, err)
	}
	return z, nil
}
