// Package cli has what the commands share: the flags that say which cluster is meant, and how a person is asked.
package cli

import (
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/operator/install"
)

// Globals are the flags of every command.
type Globals struct {
	Kubeconfig, Context       string
	Namespace, IstioNamespace string
	As, AsUID                 string
	AsGroups                  []string
	// Sandbox is looked at instead of a cluster; Timeout is for each answer. Only some commands have these.
	Sandbox string
	Timeout time.Duration
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
	config, _, err := g.cluster()
	return config, err
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
