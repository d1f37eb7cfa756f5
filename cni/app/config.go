package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/cni/internal/nodeagent"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginlog"
	"github.com/isthmus-mesh/isthmus/cni/internal/repair"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Config of the node agent.
type Config struct {
	Node string
	// ConfigDir holds the objects and APISocket takes the annotations. Without them the Kubernetes API does: that of Kubeconfig, or of the
	// cluster that this pod is in.
	ConfigDir, APISocket string
	Kubeconfig           string
	// PodName and PodNamespace are the agent's own pod. Its DaemonSet is that pod's owner.
	PodName, PodNamespace string
	// ZDSSocket is for ztunnel, PluginSocket for the CNI plugin.
	ZDSSocket, PluginSocket string
	Install                 InstallConfig
	// HostProc is the node's procfs where the agent runs in a container. Without it the agent is on the node.
	HostProc string
	// StateFile keeps the node's pods over a restart of the agent.
	StateFile         string
	ExcludeNamespaces []string
	// AmbientDisabled wants no pod in the mesh. Selection is a YAML list of selectors in place of the usual label.
	AmbientDisabled bool
	Selection       string
	// RootNamespace has the policies of the whole mesh.
	RootNamespace string
	Redirect      plan.Config
	// Backend is nft or iptables for all pods, sklookup for those that are enrolled before they start, the others by the first of nft and
	// iptables that this kernel has; or "", which is sklookup if nobody minds that this kernel cannot. IPTables is nft, legacy or "" for
	// what the node uses.
	Backend, IPTables string
	// BPFDir is where sklookup keeps its pins, in a BPF file system.
	BPFDir string
	// NoBranchProbes leaves pods behind interfaces of the cloud's network without the node's probes (AWS; cni/redirect/host).
	NoBranchProbes bool
	// KeepRules leaves the rules of pods alone that an earlier agent has enrolled.
	KeepRules bool
	// HealthAddr serves /healthz, /readyz and /status, MonitoringAddr /metrics.
	HealthAddr, MonitoringAddr string
	// CleanUp takes the plugin off the node at the end. Otherwise that is done only when the agent's DaemonSet has been deleted.
	CleanUp bool
	Repair  repair.Config
	Build   telemetry.Build
	Log     *slog.Logger
}

// InstallConfig says how the plugin gets onto the node.
type InstallConfig struct {
	// Source is the plugin's binary; an empty one installs nothing. BinDir and NetDir are where it goes, as the agent sees them.
	Source, BinDir, NetDir string
	// ConfName is the node's network configuration; Unchained, Owned and OwnedName are those of cni/internal/install.
	ConfName         string
	Unchained, Owned bool
	OwnedName        string
}

// Default is the configuration of a node with nothing special.
func Default() Config {
	return Config{
		ZDSSocket: "/var/run/ztunnel/ztunnel.sock", PluginSocket: "/var/run/istio-cni/pluginevent.sock",
		Install:   InstallConfig{BinDir: "/opt/cni/bin", NetDir: "/etc/cni/net.d"},
		StateFile: "/var/run/istio-cni/pods.json", BPFDir: sklookup.DefaultDir,
		ExcludeNamespaces: []string{"istio-system", "kube-system"}, RootNamespace: "istio-system", Redirect: plan.DefaultConfig(),
		HealthAddr: ":8000", MonitoringAddr: ":15014", Repair: repair.Default(), Build: telemetry.NewBuild("", ""),
	}
}

// logSocket takes what the plugin has to say.
func (c Config) logSocket() string {
	return filepath.Join(filepath.Dir(c.PluginSocket), pluginapi.LogSocket)
}

// pluginLevel is the level of the plugin's log: what the agent would write of it.
func (c Config) pluginLevel(ctx context.Context) string {
	log := telemetry.Scoped(c.Log, pluginlog.Scope)
	for _, l := range []struct {
		level slog.Level
		name  string
	}{{slog.LevelDebug, "debug"}, {slog.LevelInfo, "info"}, {slog.LevelWarn, "warn"}, {slog.LevelError, "error"}} {
		if log.Enabled(ctx, l.level) {
			return l.name
		}
	}
	return "none"
}

// onKubernetes tells whether the Kubernetes API has the objects.
func (c Config) onKubernetes() bool { return c.ConfigDir == "" }

func (c Config) validate() (nodeagent.Selection, error) {
	switch {
	case c.Log == nil:
		return nil, errors.New("start the node agent: no logger")
	case c.Node == "":
		return nil, errors.New("start the node agent: the node's name is missing: set --node-name or NODE_NAME")
	case c.ConfigDir != "" && c.APISocket == "":
		return nil, errors.New("start the node agent: nobody takes annotations: set --api-socket beside --config-dir")
	case c.onKubernetes() && c.PodNamespace == "":
		return nil, errors.New("start the node agent: its own namespace is missing: set POD_NAMESPACE (or name a directory of manifests with --config-dir)")
	}
	if err := c.Repair.Validate(); err != nil {
		return nil, err
	}
	return nodeagent.ParseSelection(c.Selection)
}
