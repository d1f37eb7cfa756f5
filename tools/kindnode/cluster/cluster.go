// Package cluster creates, fills and deletes kind clusters through kind's own library.
package cluster

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	kind "sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cmd"
)

// Config says what cluster to make.
type Config struct {
	Name       string
	Image      string // of the nodes
	Workers    int
	Family     string // ipv4, ipv6 or dual
	Kubeconfig string // file to write
	Wait       time.Duration
}

// Lab is a kind cluster by name. kind runs the docker client, which takes the daemon from DOCKER_HOST in the
// environment of this process.
type Lab struct {
	provider *kind.Provider
	log      *slog.Logger
}

// New makes a Lab.
func New(log *slog.Logger) *Lab {
	return &Lab{provider: kind.NewProvider(kind.ProviderWithLogger(cmd.NewLogger()), kind.ProviderWithDocker()), log: log}
}

// Up creates the cluster unless there is one of that name, and writes the kubeconfig in any case.
func (l *Lab) Up(c Config) error {
	have, err := l.provider.List()
	if err != nil {
		return fmt.Errorf("list kind clusters: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.Kubeconfig), 0o755); err != nil {
		return err
	}
	if slices.Contains(have, c.Name) {
		l.log.Info("the cluster is there already", "name", c.Name)
		if err := l.start(c.Name); err != nil {
			return err
		}
		if err := l.mountBPF(c.Name); err != nil {
			return err
		}
		return l.provider.ExportKubeConfig(c.Name, c.Kubeconfig, false)
	}
	start := time.Now()
	err = l.provider.Create(c.Name,
		kind.CreateWithV1Alpha4Config(spec(c)),
		kind.CreateWithNodeImage(c.Image),
		kind.CreateWithKubeconfigPath(c.Kubeconfig),
		kind.CreateWithWaitForReady(c.Wait),
		kind.CreateWithRetain(false),
		kind.CreateWithDisplayUsage(false),
		kind.CreateWithDisplaySalutation(false),
	)
	if err != nil {
		return fmt.Errorf("create kind cluster %s: %w", c.Name, err)
	}
	if err := l.mountBPF(c.Name); err != nil {
		return err
	}
	l.log.Info("cluster is up", "name", c.Name, "took", time.Since(start).Round(time.Second/10), "kubeconfig", c.Kubeconfig)
	return nil
}

// start starts the nodes that are stopped, as after a restart of the machine.
func (l *Lab) start(name string) error {
	list, err := l.provider.ListNodes(name)
	if err != nil {
		return fmt.Errorf("list nodes of %s: %w", name, err)
	}
	args := []string{"start"}
	for _, n := range list {
		args = append(args, n.String())
	}
	if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// mountBPF gives the nodes a BPF file system, which every machine has that systemd has started, and a node of kind has not.
func (l *Lab) mountBPF(name string) error {
	list, err := l.provider.ListInternalNodes(name)
	if err != nil {
		return fmt.Errorf("list nodes of %s: %w", name, err)
	}
	for _, n := range list {
		if err := n.Command("sh", "-c", "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf").Run(); err != nil {
			return fmt.Errorf("mount a BPF file system in node %s: %w", n, err)
		}
	}
	return nil
}

func spec(c Config) *v1alpha4.Cluster {
	out := &v1alpha4.Cluster{
		TypeMeta:   v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"},
		Networking: v1alpha4.Networking{IPFamily: v1alpha4.ClusterIPFamily(c.Family)},
		Nodes:      []v1alpha4.Node{{Role: v1alpha4.ControlPlaneRole}},
		// Not on by default in Kubernetes yet, and what suites use.
		FeatureGates:  map[string]bool{"ClusterTrustBundle": true, "ClusterTrustBundleProjection": true},
		RuntimeConfig: map[string]string{"certificates.k8s.io/v1beta1": "true"},
	}
	for range c.Workers {
		out.Nodes = append(out.Nodes, v1alpha4.Node{Role: v1alpha4.WorkerRole})
	}
	return out
}

// Down deletes the cluster; that there is none is no error.
func (l *Lab) Down(name, kubeconfig string) error {
	if err := l.provider.Delete(name, kubeconfig); err != nil {
		return fmt.Errorf("delete kind cluster %s: %w", name, err)
	}
	return nil
}

// Names lists the clusters of the docker daemon.
func (l *Lab) Names() ([]string, error) { return l.provider.List() }

// Logs writes the logs of the nodes and their containers into dir.
func (l *Lab) Logs(name, dir string) error { return l.provider.CollectLogs(name, dir) }
