package sklookup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Names of the pins. Those of a pod are in a directory named after the inode of its network namespace.
const (
	pinListeners = "listeners_v1"
	pinLookup    = "lookup"
	pinMarker    = "marker"
)

// maxListeners bounds the map of listeners: some 1000 pods on a node, with the listeners of two proxies.
const maxListeners = 16 << 10

// store is what is in the kernel for all pods of a node: pins, and the programs that visit sockets.
type store struct {
	dir       string
	listeners *ebpf.Map
	visitor   *visitor

	mu   sync.Mutex // guards pods
	pods map[uint32]*sync.Mutex
}

// open makes or finds the pins below dir.
func open(dir string) (*store, error) {
	if err := checkMount(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the pins: %w", err)
	}
	listeners, err := ebpf.NewMapWithOptions(&ebpf.MapSpec{
		Name: pinListeners, Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: maxListeners, Pinning: ebpf.PinByName,
	}, ebpf.MapOptions{PinPath: dir})
	if err != nil {
		return nil, fmt.Errorf("map of listeners: %w", err)
	}
	visitor, err := newVisitor(listeners)
	if err != nil {
		listeners.Close()
		return nil, err
	}
	return &store{dir: dir, listeners: listeners, visitor: visitor, pods: map[uint32]*sync.Mutex{}}, nil
}

// checkMount makes sure that dir is in a BPF file system. None is mounted here: one of a container's own would go with the container,
// and the redirection with it.
func checkMount(dir string) error {
	parent := filepath.Dir(dir)
	var stat unix.Statfs_t
	if err := unix.Statfs(parent, &stat); err != nil {
		return fmt.Errorf("BPF file system at %s: %w", parent, err)
	}
	if stat.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("there is no BPF file system at %s: mount one (mount -t bpf bpf %s) and show it to the agent", parent, parent)
	}
	return nil
}

func (s *store) close() {
	s.visitor.Close()
	s.listeners.Close()
}

// lock lets one at a time change a pod.
func (s *store) lock(netns uint32) (unlock func()) {
	s.mu.Lock()
	m, ok := s.pods[netns]
	if !ok {
		m = &sync.Mutex{}
		s.pods[netns] = m
	}
	s.mu.Unlock()
	m.Lock()
	return m.Unlock
}

func (s *store) path(netns uint32, name string) string {
	return filepath.Join(s.dir, strconv.FormatUint(uint64(netns), 10), name)
}

// pinned opens a link that is pinned; nil if there is none.
func (s *store) pinned(netns uint32, name string) (link.Link, error) {
	l, err := link.LoadPinnedLink(s.path(netns, name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the link %s: %w", s.path(netns, name), err)
	}
	return l, nil
}

// lookup opens the pod's link; nil if there is none, or one of another pod that is gone: inodes are used again.
func (s *store) lookup(netns uint32) (link.Link, error) {
	l, err := s.pinned(netns, pinLookup)
	if err != nil || l == nil {
		return nil, err
	}
	alive, err := serves(l, netns)
	if alive {
		return l, nil
	}
	l.Close()
	if err != nil {
		return nil, err
	}
	return nil, s.forget(netns)
}

// serves tells whether a link is attached to the network namespace.
func serves(l link.Link, netns uint32) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("look at a link: %w", err)
	}
	ns := info.NetNs()
	return ns != nil && ns.NetnsInode == netns, nil
}

// pin keeps a link beyond this process, and closes it.
func (s *store) pin(l link.Link, netns uint32, name string) error {
	defer l.Close()
	path := s.path(netns, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("directory of the pins: %w", err)
	}
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin the link %s: %w", path, err)
	}
	return nil
}

// unpin takes a pin away and detaches what it held, at once: the kernel would take its time.
func (s *store) unpin(netns uint32, name string) error {
	l, err := s.pinned(netns, name)
	if l != nil {
		_ = l.Detach() // what it was attached to may be gone
		l.Close()
	}
	if rmErr := os.Remove(s.path(netns, name)); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		return fmt.Errorf("take a pin away: %w", errors.Join(rmErr, err))
	}
	return nil
}

// forget takes all pins of a pod away.
func (s *store) forget(netns uint32) error {
	err := errors.Join(s.unpin(netns, pinMarker), s.unpin(netns, pinLookup))
	if rmErr := os.Remove(filepath.Dir(s.path(netns, pinLookup))); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("take the pins of a pod away: %w", rmErr))
	}
	return err
}

// sweep takes the pins of pods away that are gone.
func (s *store) sweep() (swept int, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, fmt.Errorf("list the pins: %w", err)
	}
	for _, e := range entries {
		inode, parseErr := strconv.ParseUint(e.Name(), 10, 32)
		if !e.IsDir() || parseErr != nil {
			continue
		}
		unlock := s.lock(uint32(inode))
		l, openErr := s.lookup(uint32(inode))
		switch {
		case openErr != nil:
			err = errors.Join(err, openErr)
		case l != nil:
			l.Close()
		default: // lookup has done it, unless there was only half of it
			err = errors.Join(err, s.forget(uint32(inode)))
			swept++
		}
		unlock()
	}
	return swept, err
}
