package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// defaultSandbox is the one that istioctl sandbox up makes unless told otherwise.
const defaultSandbox = "default"

// AddMesh adds the flags of commands that look at a mesh, wherever it runs.
func (g *Globals) AddMesh(f *pflag.FlagSet) {
	f.StringVar(&g.Sandbox, "sandbox", "", "sandbox on this machine to look at instead of a cluster: its name, or the directory of its state")
	f.DurationVar(&g.Timeout, "request-timeout", 30*time.Second, "how long to wait for each answer")
}

// Mesh returns the mesh that the flags name: the sandbox if one is named, else the cluster. Where no cluster is configured, a sandbox that
// runs is meant.
func (g *Globals) Mesh() (*reach.Mesh, error) {
	mesh, err := g.place()
	if err == nil {
		mesh.Timeout = g.Timeout
		mesh.Progress = g.progress.Begin
	}
	return mesh, err
}

func (g *Globals) place() (*reach.Mesh, error) {
	if g.Sandbox != "" {
		return reach.Sandbox(g.Sandbox, cmp.Or(g.Namespace, "default"))
	}
	config, namespace, err := g.cluster()
	if err == nil {
		return reach.Cluster(config, cmp.Or(g.Namespace, namespace, "default"))
	}
	// Whoever sets $KUBECONFIG means a cluster too, even if the file is not there.
	if g.Kubeconfig == "" && g.Context == "" && !clientcmd.NewDefaultClientConfigLoadingRules().WarnIfAllMissing {
		if mesh, none := reach.Sandbox(defaultSandbox, cmp.Or(g.Namespace, "default")); none == nil {
			return mesh, nil
		}
	}
	return nil, fmt.Errorf("%w, or a sandbox by --sandbox", err)
}

// clientConfig is what the flags and the kubeconfig say about the cluster.
func (g *Globals) clientConfig() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = g.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: g.Context}
	overrides.AuthInfo.Impersonate = g.As
	overrides.AuthInfo.ImpersonateUID = g.AsUID
	overrides.AuthInfo.ImpersonateGroups = g.AsGroups
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
}

// cluster returns how the cluster is reached, and the namespace of its context.
func (g *Globals) cluster() (*rest.Config, string, error) {
	client := g.clientConfig()
	config, err := client.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("which cluster: %w; name its kubeconfig by --kubeconfig or $KUBECONFIG", err)
	}
	config.UserAgent = "istioctl"
	// People wait for the answer: many requests at once are meant.
	config.QPS, config.Burst = 50, 100
	namespace, _, err := client.Namespace()
	if err != nil {
		namespace = ""
	}
	return config, namespace, nil
}
