// Package cli has what the commands share: the flags that say which cluster is meant, and how a person is asked.
package cli

import (
	"flag"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/isthmus-mesh/isthmus/operator/install"
)

// Globals are the flags of every command.
type Globals struct {
	Kubeconfig, Context       string
	Namespace, IstioNamespace string
	As, AsUID                 string
	AsGroups                  []string
	// Verbose is how much is told of the requests to the API server, as in klog.
	Verbose int
	// Sandbox is looked at instead of a cluster; Timeout is for each answer. Only some commands have these.
	Sandbox string
	Timeout time.Duration

	progress *Progress // nil before Begin, and where nobody watches
	// lookup is the environment, when names are completed.
	lookup func(string) (string, bool)
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
	f.IntVar(&g.Verbose, "vklog", 0, "how much to tell of the requests to the API server: 6 for each, 9 with what was said")
}

// Begin is called before a command runs, with all flags set.
func (g *Globals) Begin(cmd *cobra.Command) error {
	g.progress = NewProgress(cmd.ErrOrStderr())
	if g.Verbose == 0 {
		return nil
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(flags)
	return flags.Set("v", strconv.Itoa(g.Verbose))
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
