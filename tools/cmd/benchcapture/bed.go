package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	skl "github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Names of the beds.
const (
	direct   = "direct"
	sklookup = "sklookup"
	nftables = "nft"
)

// Addresses of a pod and its peer.
var podIP, peerIP = netip.MustParseAddr("10.66.0.2"), netip.MustParseAddr("10.66.0.1")

const appPort = 8080

// bed is a pod that is redirected in one way, its peer, and a proxy that accepts.
type bed struct {
	name      string
	pod, peer *os.File
	listeners []int
}

type beds struct {
	all   []*bed
	mount string
	skl   *skl.Backend
}

func newBeds() (*beds, error) {
	dir, err := os.MkdirTemp("", "benchcapture")
	if err != nil {
		return nil, err
	}
	b := &beds{mount: dir}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		b.close()
		return nil, fmt.Errorf("mount a BPF file system (the benchmark needs root): %w", err)
	}
	if b.skl, err = skl.Open(filepath.Join(dir, "mesh")); err != nil {
		b.close()
		return nil, err
	}
	for _, kind := range []struct {
		name    string
		backend redirect.Backend
	}{{direct, nil}, {sklookup, b.skl}, {nftables, nft.Backend{}}} {
		one, err := newBed(kind.name, kind.backend)
		if one != nil {
			b.all = append(b.all, one)
		}
		if err != nil {
			b.close()
			return nil, fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return b, nil
}

func (b *beds) close() {
	for _, one := range b.all {
		for _, fd := range one.listeners {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR) // its accept ends, and closes it
		}
		one.pod.Close()
		one.peer.Close()
	}
	if b.skl != nil {
		b.skl.Close()
	}
	_ = unix.Unmount(b.mount, unix.MNT_DETACH)
	_ = os.Remove(b.mount)
}

func newBed(name string, backend redirect.Backend) (*bed, error) {
	b := &bed{name: name}
	var err error
	if b.pod, err = newNetns(); err != nil {
		return nil, err
	}
	if b.peer, err = newNetns(); err != nil {
		return nil, err
	}
	if err := b.link(); err != nil {
		return b, err
	}
	ports := []int{plan.PortOutbound, plan.PortInbound}
	if backend == nil {
		ports = append(ports, appPort)
	}
	for _, port := range ports {
		fd, err := listen(b.pod, port)
		if err != nil {
			return b, err
		}
		b.listeners = append(b.listeners, fd)
		go answer(fd)
	}
	if backend == nil {
		return b, nil
	}
	config := plan.DefaultConfig()
	config.DNS, config.IPv6 = false, false
	return b, backend.Apply(b.pod, plan.Plan(plan.Pod{}, config))
}

// newNetns makes a network namespace that goes with its last descriptor.
func newNetns() (*os.File, error) {
	var file *os.File
	err := netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return file, err
}

// link joins pod and peer.
func (b *bed) link() error {
	var handles []*netlink.Handle
	for _, ns := range []*os.File{b.pod, b.peer} {
		h, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		handles = append(handles, h)
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0", Namespace: netlink.NsFd(b.pod.Fd())}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.peer.Fd()),
	}
	if err := handles[0].LinkAdd(veth); err != nil {
		return err
	}
	for i, ip := range []netip.Addr{podIP, peerIP} {
		lo, err := handles[i].LinkByName("lo")
		if err != nil {
			return err
		}
		eth, err := handles[i].LinkByName("eth0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(ip.String() + "/24")
		if err != nil {
			return err
		}
		if err := errors.Join(handles[i].LinkSetUp(lo), handles[i].AddrAdd(eth, addr), handles[i].LinkSetUp(eth)); err != nil {
			return err
		}
	}
	return nil
}

// outbound is a connection that starts in the pod and that the proxy takes there.
func (b *bed) outbound() end {
	if b.name == direct {
		return end{b.pod, podIP, plan.PortOutbound}
	}
	return end{b.pod, peerIP, appPort}
}

// inbound is a connection from the peer that the proxy takes in the pod.
func (b *bed) inbound() end { return end{b.peer, podIP, appPort} }
