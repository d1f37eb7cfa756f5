package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/cni/app"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/iptables"
)

// Where a DaemonSet mounts the node's directories.
const (
	mountedNetDir = "/host/etc/cni/net.d"
	mountedBinDir = "/host/opt/cni/bin"
	mountedProc   = "/host/proc"
	imagePlugin   = "/opt/cni/bin/istio-cni"
)

// settings are the configuration as it is being read, with what is only part of it.
type settings struct {
	app.Config
	level      string
	json       bool
	mountedNet string
	pluginSet  bool
	hostSet    bool
	binSet     bool
	excludeSet bool
}

// option is one row of the table: a flag, and the environment variables that set the same. The flag counts before them. Without
// variables the flag's own name in capitals is one, as in Istio.
type option struct {
	name string
	env  []string
	help string
	set  func(string) error
	bool bool
}

func (o option) variables() []string {
	return append(o.env, strings.ToUpper(strings.ReplaceAll(o.name, "-", "_")))
}

func text(to *string) func(string) error {
	return func(s string) error { *to = s; return nil }
}

func boolean(to *bool) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseBool(s)
		if err == nil {
			*to = v
		}
		return err
	}
}

// negated is for names that say the opposite of what the configuration does.
func negated(to *bool) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseBool(s)
		if err == nil {
			*to = !v
		}
		return err
	}
}

func number(to *int) func(string) error {
	return func(s string) error {
		v, err := strconv.Atoi(s)
		if err == nil {
			*to = v
		}
		return err
	}
}

func address(to *netip.Addr) func(string) error {
	return func(s string) error {
		v, err := netip.ParseAddr(s)
		if err == nil {
			*to = v
		}
		return err
	}
}

// port makes an address to listen on.
func port(to *string) func(string) error {
	return func(s string) error {
		if _, err := strconv.ParseUint(s, 10, 16); err != nil {
			return err
		}
		*to = ":" + s
		return nil
	}
}

func noted(to *bool, set func(string) error) func(string) error {
	return func(s string) error { *to = true; return set(s) }
}

func ignored(string) error { return nil }

// options is the one table of flags and environment variables.
func options(s *settings) []option {
	return append(append(append(nodeOptions(s), installOptions(s)...), ambientOptions(s)...), repairOptions(s)...)
}

func nodeOptions(s *settings) []option {
	return []option{
		{name: "node", env: []string{"NODE_NAME", "KUBERNETES_NODE_NAME", "K8S_NODE_NAME"}, help: "name of this node", set: text(&s.Node)},
		{name: "pod-name", help: "name of the agent's own pod", set: text(&s.PodName)},
		{name: "pod-namespace", help: "namespace of the agent's own pod", set: text(&s.PodNamespace)},
		{name: "kubeconfig", help: "how to reach the Kubernetes API; empty is the cluster that this pod is in", set: text(&s.Kubeconfig)},
		{name: "config-dir", help: "directory of manifests with the pods and namespaces, in place of the Kubernetes API", set: text(&s.ConfigDir)},
		{name: "api-socket", help: "Unix socket that takes annotations of pods, beside --config-dir", set: text(&s.APISocket)},
		{name: "host-proc", help: "the node's /proc as the agent sees it (" + mountedProc + " on Kubernetes); empty: the agent is on the node", set: noted(&s.hostSet, text(&s.HostProc))},
		{name: "zds-socket", env: []string{"ZDS_SOCKET", "ZTUNNEL_UDS_ADDRESS"}, help: "Unix socket for ztunnel", set: text(&s.ZDSSocket)},
		{name: "plugin-socket", help: "Unix socket for the CNI plugin", set: text(&s.PluginSocket)},
		{name: "cni-agent-run-dir", help: "directory of the agent's sockets and memory", set: func(dir string) error {
			s.PluginSocket, s.StateFile = filepath.Join(dir, "pluginevent.sock"), filepath.Join(dir, "pods.json")
			return nil
		}},
		{name: "state-file", help: "file that keeps the node's pods over a restart", set: text(&s.StateFile)},
		{name: "readiness-addr", help: "address of /healthz, /readyz and /status", set: text(&s.HealthAddr)},
		{name: "monitoring-addr", help: "address of /metrics", set: text(&s.MonitoringAddr)},
		{name: "monitoring-port", help: "port of /metrics", set: port(&s.MonitoringAddr)},
		{name: "log-level", env: []string{"LOG_LEVEL"}, help: "log levels: level, or scope:level, comma-separated", set: text(&s.level)},
		{name: "log-as-json", help: "log JSON objects", set: boolean(&s.json), bool: true},
		{name: "root-namespace", help: "namespace of the policies of the whole mesh", set: text(&s.RootNamespace)},
		{name: "cleanup-on-exit", help: "take the plugin and the node's rules away at the end, whatever the reason", set: boolean(&s.CleanUp), bool: true},
		{name: "ambient-disable-safe-upgrade", help: "as --cleanup-on-exit: while the agent restarts, pods may start outside of the mesh", set: boolean(&s.CleanUp), bool: true},
	}
}

func installOptions(s *settings) []option {
	i := &s.Install
	return []option{
		{name: "plugin-source", help: "the CNI plugin to install; empty installs none", set: noted(&s.pluginSet, text(&i.Source))},
		{name: "cni-bin-dir", help: "directory of CNI plugins (" + mountedBinDir + " on Kubernetes)", set: noted(&s.binSet, text(&i.BinDir))},
		{name: "cni-net-dir", help: "directory of network configurations on the node", set: text(&i.NetDir)},
		{name: "mounted-cni-net-dir", help: "directory of network configurations as the agent sees it (" + mountedNetDir + " on Kubernetes)", set: text(&s.mountedNet)},
		{name: "cni-conf-name", help: "the node's network configuration; empty is the first by name", set: text(&i.ConfName)},
		{name: "chained-cni-plugin", help: "follow the node's own plugins; otherwise the plugin gets a file of its own", set: negated(&i.Unchained), bool: true},
		{name: "istio-owned-cni-config", help: "put a copy of the node's configuration, with the plugin, before it: it survives a reboot", set: boolean(&i.Owned), bool: true},
		{name: "istio-owned-cni-config-filename", help: "name of that copy", set: text(&i.OwnedName)},
		{name: "exclude-namespaces", help: "namespaces that are never enrolled", set: noted(&s.excludeSet, func(list string) error {
			s.ExcludeNamespaces = nil
			for name := range strings.SplitSeq(list, ",") {
				if name = strings.TrimSpace(name); name != "" {
					s.ExcludeNamespaces = append(s.ExcludeNamespaces, name)
				}
			}
			return nil
		})},
	}
}

func ambientOptions(s *settings) []option {
	return []option{
		{name: "ambient-enabled", help: "enrol pods in ambient mode", set: negated(&s.AmbientDisabled), bool: true},
		{name: "ambient-enablement-selector", env: []string{"AMBIENT_ENABLEMENT_SELECTORS"}, help: "YAML list of {namespaceSelector, podSelector} in place of the label istio.io/dataplane-mode", set: text(&s.Selection)},
		{name: "dns-capture", env: []string{"AMBIENT_DNS_CAPTURE"}, help: "capture the DNS queries of pods", set: boolean(&s.Redirect.DNS), bool: true},
		{name: "ipv6", env: []string{"AMBIENT_IPV6"}, help: "capture IPv6 too", set: boolean(&s.Redirect.IPv6), bool: true},
		{name: "host-probe-snat-ip", help: "source of the node's probes as pods see it", set: address(&s.Redirect.ProbeSource)},
		{name: "host-probe-snat-ipv6", help: "the same over IPv6", set: address(&s.Redirect.ProbeSourceIPv6)},
		{name: "ambient-enable-aws-branch-eni-probe", help: "lead the node's probes to pods behind an interface of the cloud's network of their own (AWS: pods with security groups)", set: negated(&s.NoBranchProbes), bool: true},
		{name: "ambient-reconcile-pod-rules-on-startup", help: "write the rules of pods anew that an earlier agent has enrolled", set: negated(&s.KeepRules), bool: true},
		{name: "enable-ambient-detection-retry", help: "no effect: an ADD always waits for the pod's object", set: ignored, bool: true},
		{name: "redirect-backend", help: "nft or iptables for all pods; sklookup for those that are enrolled before they start, the others by the first of nft and iptables that this kernel has; empty is sklookup where the node can", set: text(&s.Backend)},
		{name: "bpf-dir", help: "directory of sklookup's pins, in a BPF file system", set: text(&s.BPFDir)},
		{name: "native-nftables", help: "true is --redirect-backend=nft, false is iptables", bool: true, set: func(v string) error {
			native, err := strconv.ParseBool(v)
			if s.Backend = redirect.IPTables; native {
				s.Backend = redirect.NFT
			}
			return err
		}},
		{name: "force-iptables-binary", help: "nft or legacy; empty is what the node uses", set: func(v string) error {
			if v != iptables.Auto && v != iptables.NFT && v != iptables.Legacy {
				return fmt.Errorf("neither %s nor %s", iptables.NFT, iptables.Legacy)
			}
			s.IPTables = v
			return nil
		}},
	}
}

func repairOptions(s *settings) []option {
	r := &s.Repair
	return []option{
		{name: "repair-enabled", help: "mend pods whose network was set up past the plugin", set: boolean(&r.Enabled), bool: true},
		{name: "repair-repair-pods", help: "mend them in place", set: boolean(&r.RepairPods), bool: true},
		{name: "repair-delete-pods", help: "delete them", bool: true, set: func(v string) error {
			err := boolean(&r.DeletePods)(v)
			r.RepairPods = r.RepairPods && !r.DeletePods
			return err
		}},
		{name: "repair-label-pods", help: "label them", bool: true, set: func(v string) error {
			err := boolean(&r.LabelPods)(v)
			r.RepairPods = r.RepairPods && !r.LabelPods
			return err
		}},
		{name: "repair-broken-pod-label-key", help: "key of that label", set: text(&r.LabelKey)},
		{name: "repair-broken-pod-label-value", help: "value of that label", set: text(&r.LabelValue)},
		{name: "repair-init-container-name", help: "the init container that finds them", set: text(&r.InitContainer)},
		{name: "repair-init-container-exit-code", help: "the code with which it ends", set: number(&r.ExitCode)},
		{name: "repair-sidecar-annotation", help: "annotation that a pod must have to be looked at", set: text(&r.SidecarAnnotation)},
		{name: "repair-label-selectors", help: "selector of the pods to look at", set: text(&r.LabelSelectors)},
		{name: "repair-field-selectors", help: "field selector of the pods to look at", set: text(&r.FieldSelectors)},
		{name: "repair-node-name", help: "the same as --node", set: func(v string) error {
			if s.Node == "" {
				s.Node = v
			}
			return nil
		}},
	}
}

// read fills the settings: first from the environment, then from the arguments.
func read(s *settings, args []string, getenv func(string) string) error {
	f := flag.NewFlagSet("install-cni", flag.ContinueOnError)
	for _, o := range options(s) {
		for _, name := range o.variables() {
			if value := getenv(name); value != "" {
				if err := o.set(value); err != nil {
					return fmt.Errorf("environment variable %s=%q: %w", name, value, err)
				}
			}
		}
		if o.bool {
			f.BoolFunc(o.name, o.help, o.set)
		} else {
			f.Func(o.name, o.help, o.set)
		}
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	complete(s)
	return nil
}

// complete fills in what depends on whether the agent is in a pod.
func complete(s *settings) {
	if !s.pluginSet {
		s.Install.Source = besideMe("istio-cni")
	}
	if s.ConfigDir != "" {
		return
	}
	if _, err := os.Stat(s.Install.Source); err != nil && !s.pluginSet {
		s.Install.Source = imagePlugin
	}
	if s.Install.NetDir = s.mountedNet; s.mountedNet == "" {
		s.Install.NetDir = mountedNetDir
	}
	if !s.binSet {
		s.Install.BinDir = mountedBinDir
	}
	if !s.hostSet {
		s.HostProc = mountedProc
	}
	if !s.excludeSet {
		s.ExcludeNamespaces = []string{"kube-system"}
	}
}

// besideMe is a file in the directory of this program.
func besideMe(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}
