package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
)

// Node is one node: a network namespace, and the directories that are its own.
type Node struct {
	NodePlan
	// Net is the node's network namespace, Mount the file system that its CNI plugins see.
	Net, Mount *os.File
	// dir holds the node's own directories.
	dir string
}

// own maps directories of a node to where they are kept, below the node's directory. They are what hostPath volumes of
// the mesh's own pods may name.
func own() map[string]string {
	return map[string]string{
		"/run/netns":     "netns",
		"/run/ztunnel":   "ztunnel",
		"/run/istio-cni": "istio-cni",
		"/run/bpf":       "bpf",
		"/etc/cni/net.d": "cni-net.d",
		"/opt/cni/bin":   "cni-bin",
		"/var/lib/cni":   "cni-state",
	}
}

// NewNode makes a node in the directory dir, not yet joined to a fabric. binds are shown in its file system besides the
// node's own directories.
func NewNode(plan NodePlan, dir, pin string, binds []rootfs.Bind) (*Node, error) {
	n := &Node{NodePlan: plan, dir: dir}
	for path, sub := range own() {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
		binds = append(binds, rootfs.Bind{Source: filepath.Join(dir, sub), Target: path})
	}
	// Shared, so that the network namespaces of later pods appear in the node's file system and in those of its agents.
	pins := n.PinDir()
	if err := unix.Mount("sandbox-netns", pins, "tmpfs", 0, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount the directory of %s's network namespaces: %w", plan.Name, err)
	}
	if err := unix.Mount("", pins, "", unix.MS_SHARED, ""); err != nil {
		return nil, fmt.Errorf("share the directory of %s's network namespaces: %w", plan.Name, err)
	}
	// What a program in the kernel is held by. A kernel without it has one choice less of redirection.
	if err := unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, "mode=700"); err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("mount the BPF file system of %s: %w", plan.Name, err)
	}
	scratch := filepath.Join(dir, "root")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	var err error
	if n.Net, err = ns.NewNet(pin); err != nil {
		return nil, fmt.Errorf("make %s: %w", plan.Name, err)
	}
	n.Mount, err = rootfs.New(rootfs.Spec{Scratch: scratch, Binds: binds})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the file system of %s: %w", plan.Name, err), n.Net.Close())
	}
	return n, nil
}

// PinDir is where the network namespaces of the node's pods are pinned.
func (n *Node) PinDir() string { return filepath.Join(n.dir, "netns") }

// PinInNode is the path of a pin as the node's own programs see it.
func PinInNode(name string) string { return "/run/netns/" + name }

// CNIConfigDir is where the node's CNI configuration lies.
func (n *Node) CNIConfigDir() string { return filepath.Join(n.dir, "cni-net.d") }

// HostPath returns where a directory of the node's own is kept; ok is false for any other path.
func (n *Node) HostPath(path string) (string, bool) {
	path = filepath.Clean(path)
	if rest, found := cutDir(path, "/var/run"); found {
		path = "/run" + rest
	}
	for dir, sub := range own() {
		if rest, found := cutDir(path, dir); found {
			return filepath.Join(n.dir, sub) + rest, true
		}
	}
	return "", false
}

func cutDir(path, dir string) (rest string, ok bool) {
	if path == dir {
		return "", true
	}
	if len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/' {
		return path[len(dir):], true
	}
	return "", false
}

// Close lets the node go.
func (n *Node) Close() error {
	err := unix.Unmount(filepath.Join(n.dir, "bpf"), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) {
		err = nil // none was mounted
	}
	return errors.Join(n.Net.Close(), n.Mount.Close(), unix.Unmount(n.PinDir(), unix.MNT_DETACH), err)
}
