// Package cli has what the commands share: the flags that say which cluster is meant, and how a person is asked.
package cli

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/operator/install"
)

// Globals are the flags of every command.
type Globals struct {
	Kubeconfig, Context       string
	Namespace, IstioNamespace string
	As, AsUID                 string
	AsGroups                  []string
}

// Add adds the flags.
func (g *Globals) Add(f *pflag.FlagSet) {
	f.StringVarP(&g.Kubeconfig, "kubeconfig", "c", "", "file of the cluster's address and credentials, instead of $KUBECONFIG or ~/.kube/config")
	f.StringVar(&g.Context, "context", "", "context in that file")
	f.StringVarP(&g.Namespace, "namespace", "n", "", "namespace of the command")
	f.StringVarP(&g.IstioNamespace, "istioNamespace", "i", "istio-system", "namespace of the control plane")
	f.StringVar(&g.As, "as", "", "user to act as")
	f.StringVar(&g.AsUID, "as-uid", "", "UID of the user to act as")
	f.StringArrayVar(&g.AsGroups, "as-group", nil, "group to act as; may be repeated")
}

// REST returns how the cluster is reached.
func (g *Globals) REST() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = g.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: g.Context}
	overrides.AuthInfo.Impersonate = g.As
	overrides.AuthInfo.ImpersonateUID = g.AsUID
	overrides.AuthInfo.ImpersonateGroups = g.AsGroups
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("which cluster: %w; name its kubeconfig by --kubeconfig or $KUBECONFIG", err)
	}
	config.UserAgent = "istioctl"
	return config, nil
}

// Connect returns the cluster as installations see it.
func (g *Globals) Connect() (*install.Cluster, error) {
	config, err := g.REST()
	if err != nil {
		return nil, err
	}
	return install.Connect(config)
}

// IsTerminal tells whether a stream is a person's terminal.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
