package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// Fabric joins the nodes, like the switch that machines are plugged into.
type Fabric struct {
	net   *os.File
	nodes []NodePlan
}

const fabricBridge = "fabric"

// NewFabric makes the fabric. pin is a path for the pin of its network namespace.
func NewFabric(pin string) (*Fabric, error) {
	file, err := ns.NewNet(pin)
	if err != nil {
		return nil, fmt.Errorf("make the fabric: %w", err)
	}
	f := &Fabric{net: file}
	if err := f.addBridge(); err != nil {
		return nil, errors.Join(fmt.Errorf("make the fabric's bridge: %w", err), f.Close())
	}
	return f, nil
}

func (f *Fabric) addBridge() error {
	h, err := handle(f.net)
	if err != nil {
		return err
	}
	defer h.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = fabricBridge
	if err := h.LinkAdd(bridge); err != nil {
		return err
	}
	return h.LinkSetUp(bridge)
}

// Close lets the fabric go.
func (f *Fabric) Close() error { return f.net.Close() }

// Net is the fabric's network namespace: what is captured there is what crosses between nodes.
func (f *Fabric) Net() *os.File { return f.net }

// Join plugs the network namespace node, made according to plan, into the fabric. Every node gets routes to the pods of
// every other one, those that joined before included.
func (f *Fabric) Join(plan NodePlan, node *os.File, others []*os.File) error {
	if err := sysctls(node); err != nil {
		return err
	}
	port := fmt.Sprintf("node-%d", plan.Index)
	if err := f.plug(port, node); err != nil {
		return fmt.Errorf("plug %s into the fabric: %w", plan.Name, err)
	}
	h, err := handle(node)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := addressNode(h, plan); err != nil {
		return fmt.Errorf("give %s its addresses: %w", plan.Name, err)
	}
	for i, other := range f.nodes {
		if err := routeTo(h, other); err != nil {
			return err
		}
		oh, err := handle(others[i])
		if err != nil {
			return err
		}
		err = routeTo(oh, plan)
		oh.Close()
		if err != nil {
			return err
		}
	}
	f.nodes = append(f.nodes, plan)
	return nil
}

// plug makes a veth pair: one end a port of the fabric's bridge, the other eth0 of the node.
func (f *Fabric) plug(port string, node *os.File) error {
	h, err := handle(f.net)
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = port
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(node.Fd()))}
	if err := h.LinkAdd(veth); err != nil {
		return err
	}
	bridge, err := h.LinkByName(fabricBridge)
	if err != nil {
		return err
	}
	link, err := h.LinkByName(port)
	if err != nil {
		return err
	}
	if err := h.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

func addressNode(h *netlink.Handle, plan NodePlan) error {
	if err := up(h, "lo"); err != nil {
		return err
	}
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{plan.Addr4, plan.Addr6} {
		addr := &netlink.Addr{IPNet: ipNet(p), Flags: nodad(p)}
		if err := h.AddrAdd(eth0, addr); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(eth0); err != nil {
		return err
	}
	// A connection that starts on the node itself needs a route before the OUTPUT chain can translate its destination.
	v4, v6 := ServiceRanges()
	for _, p := range []netip.Prefix{v4, v6} {
		if err := h.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: ipNet(p)}); err != nil {
			return fmt.Errorf("route to the services: %w", err)
		}
	}
	return nil
}

func routeTo(h *netlink.Handle, other NodePlan) error {
	for _, r := range []struct{ pods, via netip.Prefix }{{other.Pods4, other.Addr4}, {other.Pods6, other.Addr6}} {
		route := &netlink.Route{Dst: ipNet(r.pods), Gw: net.IP(r.via.Addr().AsSlice())}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route to the pods of %s: %w", other.Name, err)
		}
	}
	return nil
}

// sysctls makes a network namespace forward, and skip duplicate address detection, which would cost a second per pod.
func sysctls(node *os.File) error {
	return ns.Set{Net: node}.Do(func() error {
		for path, value := range map[string]string{
			"ipv4/ip_forward":                  "1",
			"ipv6/conf/all/forwarding":         "1",
			"ipv6/conf/default/accept_dad":     "0",
			"ipv6/conf/default/dad_transmits":  "0",
			"ipv4/conf/all/send_redirects":     "0",
			"ipv4/conf/default/send_redirects": "0",
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", path), []byte(value), 0o644); err != nil {
				return fmt.Errorf("set sysctl net/%s: %w", path, err)
			}
		}
		return nil
	})
}

// PreparePod readies a pod's network namespace for the CNI plugins: loopback is up, addresses are usable at once.
func PreparePod(pod *os.File) error {
	err := ns.Set{Net: pod}.Do(func() error {
		for _, path := range []string{"accept_dad", "dad_transmits"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/"+path, []byte("0"), 0o644); err != nil {
				return err
			}
		}
		// Containers need no capability to listen on low ports, as in Kubernetes.
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o644)
	})
	if err != nil {
		return fmt.Errorf("set the pod's sysctls: %w", err)
	}
	h, err := handle(pod)
	if err != nil {
		return err
	}
	defer h.Close()
	return up(h, "lo")
}

func handle(file *os.File) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(int(file.Fd())))
	if err != nil {
		return nil, fmt.Errorf("open netlink in a network namespace: %w", err)
	}
	return h, nil
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func nodad(p netip.Prefix) int {
	if p.Addr().Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}
