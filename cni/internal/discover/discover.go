// Package discover finds the network namespaces of pods that already run, by the cgroups of their processes.
package discover

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
)

// Finder looks below the procfs of the node.
type Finder struct {
	// Proc is where the node's procfs is mounted, such as /host/proc.
	Proc string
	// Host is the network namespace of the node, which is never a pod's.
	Host netns.ID
}

// Wanted is a pod to be found.
type Wanted struct {
	UID string
	// IPs of the pod. A namespace without one of them is not the pod's.
	IPs []netip.Addr
}

// Found is a pod's network namespace.
type Found struct {
	Path     string
	Identity netns.ID
}

// ErrNoProcess means that no process of the pod was seen.
var ErrNoProcess = errors.New("no process of the pod was found on this node")

// Find returns the namespaces of the pods that it finds, and why it did not find the others, both by UID. procfs is read once.
func (f Finder) Find(pods []Wanted) (map[string]Found, map[string]error) {
	found, problems := map[string]Found{}, map[string]error{}
	want := map[string]Wanted{}
	for _, p := range pods {
		want[p.UID] = p
		problems[p.UID] = ErrNoProcess
	}
	entries, err := os.ReadDir(f.Proc)
	if err != nil {
		for uid := range problems {
			problems[uid] = fmt.Errorf("list the node's processes: %w", err)
		}
		return found, problems
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		dir := filepath.Join(f.Proc, e.Name())
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue // it has ended
		}
		uid := PodUID(string(cgroup))
		p, ok := want[uid]
		if !ok {
			continue
		}
		ns, err := f.check(filepath.Join(dir, "ns/net"), p)
		if err != nil {
			problems[uid] = err
			continue
		}
		found[uid] = ns
		delete(want, uid)
		delete(problems, uid)
	}
	return found, problems
}

// check verifies that a process's network namespace is the pod's own: a process of a pod may have entered another one.
func (f Finder) check(path string, p Wanted) (Found, error) {
	file, err := netns.Open(path)
	if err != nil {
		return Found{}, err
	}
	defer file.Close()
	id, err := netns.Identify(file)
	if err != nil {
		return Found{}, err
	}
	if id == f.Host {
		return Found{}, errors.New("a process of the pod is in the node's network namespace")
	}
	have, err := netns.Addresses(file)
	if err != nil {
		return Found{}, err
	}
	if !slices.ContainsFunc(p.IPs, func(ip netip.Addr) bool { return slices.Contains(have, ip.Unmap()) }) {
		return Found{}, fmt.Errorf("the network namespace of a process of the pod has addresses %v, the pod has %v", have, p.IPs)
	}
	return Found{Path: path, Identity: id}, nil
}
