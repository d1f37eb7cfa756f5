package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// SystemNamespace is where the mesh is installed.
const SystemNamespace = "istio-system"

// Settings say which cluster, and by which programs it is reached besides its API.
type Settings struct {
	// Kubeconfig is the path of the cluster's.
	Kubeconfig string
	// Istioctl is the path of the program.
	Istioctl string
	// DockerHost is the engine that runs the cluster's nodes; empty is the default one.
	DockerHost string
	// Samples is the directory of the sample applications.
	Samples string
	// Artifacts is where the report of a failure goes; empty is nowhere.
	Artifacts string
	// Operator is the directory of the charts and of the in-cluster operator.
	Operator string
	// Hub and Tag are those of the images that were loaded into the nodes.
	Hub, Tag string
	// Helm and Kubectl are paths of programs; empty if the driver made none.
	Helm, Kubectl string
	// PreviousIstioctl is the program of the version before, PreviousTag the tag of its images; empty if there is none to upgrade from.
	PreviousIstioctl, PreviousTag string
}

// FromEnvironment reads the settings that the driver of the suites passes on.
func FromEnvironment() Settings {
	get := func(name, otherwise string) string { return or(os.Getenv(name), otherwise) } //nolint:forbidigo // the one place
	return Settings{
		Kubeconfig: get("KUBECONFIG", ""), Istioctl: get("ISTIOCTL", "istioctl"), DockerHost: get("DOCKER_HOST", ""),
		Samples: get("SAMPLES", "../../../samples"), Operator: get("OPERATOR", "../../../operator"),
		Helm: get("HELM", ""), Kubectl: get("KUBECTL", ""), PreviousIstioctl: get("PREVIOUS_ISTIOCTL", ""), PreviousTag: get("PREVIOUS_TAG", ""),
		Artifacts: get("ARTIFACTS", ""), Hub: get("HUB", "docker.io/isthmus"), Tag: get("TAG", "dev"),
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Cluster is a running cluster. It is safe for concurrent use.
type Cluster struct {
	Settings
	REST    *rest.Config
	Client  kubernetes.Interface
	Dynamic dynamic.Interface

	mapper *restmapper.DeferredDiscoveryRESTMapper
}

// Open connects to a cluster and checks that it answers.
func Open(ctx context.Context, s Settings) (*Cluster, error) {
	if s.Kubeconfig == "" {
		return nil, errors.New("no cluster: KUBECONFIG is not set; `make e2e` makes one and sets it")
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Kubeconfig, err)
	}
	config.QPS, config.Burst = 100, 200
	c := &Cluster{Settings: s, REST: config}
	if c.Client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if c.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Client.Discovery()))
	if _, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return nil, fmt.Errorf("the cluster of %s does not answer: %w", s.Kubeconfig, err)
	}
	return c, nil
}

// RunIstioctl runs istioctl against the cluster and returns what it printed, on both outputs.
func (c *Cluster) RunIstioctl(ctx context.Context, args ...string) (string, error) {
	return c.Run(ctx, nil, c.Istioctl, args...)
}

// Run runs a program against the cluster and returns what it printed, on both outputs.
func (c *Cluster) Run(ctx context.Context, stdin io.Reader, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+c.Kubeconfig, "NO_COLOR=1")
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %v: %w\n%s", filepath.Base(program), args, err, out)
	}
	return string(out), nil
}

// remap forgets which kinds the API server has, for kinds that have come since.
func (c *Cluster) remap(err error) bool {
	if !meta.IsNoMatchError(err) {
		return false
	}
	c.mapper.Reset()
	return true
}
