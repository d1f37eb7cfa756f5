package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// CNI runs CNI plugins as the container runtime of one node does: in the node's network and mount namespaces.
type CNI struct {
	node *Node
	cni  *libcni.CNIConfig
}

// PodNet names a pod to the plugins.
type PodNet struct {
	// ID is the container ID, Pin the name of the pinned network namespace.
	ID, Pin string
	// Namespace, Name and UID are the pod's.
	Namespace, Name, UID string
}

// NewCNI returns the runner of node's plugins, which are looked for in pluginDirs, paths of the machine's.
func NewCNI(node *Node, pluginDirs []string) *CNI {
	dirs := append([]string{"/opt/cni/bin"}, pluginDirs...)
	runner := &inNode{node: node, PluginDecoder: version.PluginDecoder{}}
	return &CNI{node: node, cni: libcni.NewCNIConfigWithCacheDir(dirs, filepath.Join(node.dir, "cni-cache"), runner)}
}

// WriteConfig writes the node's network configuration: point-to-point links, so that traffic between two pods of one
// node passes the node's own translation of service addresses in both directions.
func (c *CNI) WriteConfig(chained ...json.RawMessage) error {
	type subnet struct {
		Subnet string `json:"subnet"`
	}
	type route struct {
		Dst string `json:"dst"`
	}
	ptp := map[string]any{
		"type": "ptp", "ipMasq": false, "mtu": 1500,
		"ipam": map[string]any{
			"type":   "host-local",
			"ranges": [][]subnet{{{c.node.Pods4.String()}}, {{c.node.Pods6.String()}}},
			"routes": []route{{"0.0.0.0/0"}, {"::/0"}},
		},
	}
	plugins := []any{ptp}
	for _, p := range chained {
		plugins = append(plugins, p)
	}
	data, err := json.MarshalIndent(map[string]any{"cniVersion": "1.0.0", "name": "sandbox", "plugins": plugins}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.node.CNIConfigDir(), "10-sandbox.conflist"), data, 0o644)
}

// Add connects a pod and returns its addresses, IPv4 first.
func (c *CNI) Add(ctx context.Context, pod PodNet) ([]netip.Addr, error) {
	list, err := c.load()
	if err != nil {
		return nil, err
	}
	result, err := c.cni.AddNetworkList(ctx, list, runtimeConf(pod))
	if err != nil {
		// A plugin of the chain may have failed after others had done their part.
		undo := c.cni.DelNetworkList(ctx, list, runtimeConf(pod))
		return nil, errors.Join(fmt.Errorf("cni add: %w", describe(err)), undo)
	}
	parsed, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, fmt.Errorf("cni add: read the result: %w", err)
	}
	var addrs []netip.Addr
	for _, ip := range parsed.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("cni add: the plugins gave the pod no address")
	}
	return addrs, nil
}

// Delete disconnects a pod. It succeeds for a pod that is not connected.
func (c *CNI) Delete(ctx context.Context, pod PodNet) error {
	list, err := c.load()
	if err != nil {
		return err
	}
	if err := c.cni.DelNetworkList(ctx, list, runtimeConf(pod)); err != nil {
		return fmt.Errorf("cni delete: %w", describe(err))
	}
	return nil
}

// load reads the first configuration of the node's directory each time: the mesh's node agent may add its plugin to it.
func (c *CNI) load() (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(c.node.CNIConfigDir(), []string{".conflist"})
	if err != nil {
		return nil, fmt.Errorf("read the cni configuration of %s: %w", c.node.Name, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no cni configuration", c.node.Name)
	}
	return libcni.ConfListFromFile(files[0])
}

func runtimeConf(pod PodNet) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: pod.ID, NetNS: PinInNode(pod.Pin), IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", pod.Namespace},
			{"K8S_POD_NAME", pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", pod.ID},
			{"K8S_POD_UID", pod.UID},
		},
	}
}

func describe(err error) error {
	var plugin *types.Error
	if errors.As(err, &plugin) && plugin.Details != "" {
		return fmt.Errorf("%s: %s", plugin.Msg, plugin.Details)
	}
	return err
}

// inNode implements invoke.Exec: plugins run in the node's namespaces.
type inNode struct {
	node *Node
	version.PluginDecoder
}

func (e *inNode) set() ns.Set { return ns.Set{Net: e.node.Net, Mount: e.node.Mount} }

// ExecPlugin runs one plugin and returns what it printed.
func (e *inNode) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	err := e.set().Do(func() error {
		cmd := exec.CommandContext(ctx, path)
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(stdin), &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		return nil, pluginError(err, filepath.Base(path), stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// FindInPath finds a plugin in the node's file system.
func (e *inNode) FindInPath(plugin string, paths []string) (string, error) {
	var found string
	err := e.set().Do(func() (err error) {
		found, err = invoke.FindInPath(plugin, paths)
		return err
	})
	return found, err
}

// pluginError makes an error of what a plugin that failed has printed: a JSON object on stdout, by the specification.
func pluginError(err error, name string, stdout, stderr []byte) error {
	var reported types.Error
	if json.Unmarshal(stdout, &reported) == nil && reported.Msg != "" {
		reported.Msg = name + ": " + reported.Msg
		return &reported
	}
	return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr))
}
