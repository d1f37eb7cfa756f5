package sklookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// trialPatience is how long a connection of the trial may take, on a node that does much else.
const trialPatience = 10 * time.Second

// trialPod and trialPeer are addresses of documentation (RFC 5737). No packet to them leaves the trial's namespace.
func trialPod() netip.Prefix    { return netip.MustParsePrefix("192.0.2.2/24") }
func trialPeer() netip.AddrPort { return netip.MustParseAddrPort("198.51.100.1:80") }

// try redirects a connection in a network namespace of its own, as it would be in a pod. That a kernel loads programs is not that it does
// with connections what is expected of it; a pod is no place to find out.
func (b *Backend) try() (err error) {
	ns, err := trialNamespace()
	if err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	defer ns.Close()
	proxy, err := trialProxy(ns)
	if err != nil {
		return fmt.Errorf("trial: the proxy's listeners: %w", err)
	}
	defer func() {
		for _, l := range proxy {
			l.Close()
		}
		err = errors.Join(err, b.Forget(ns))
	}()
	rules := plan.Plan(plan.Pod{}, plan.Config{ProbeSource: plan.DefaultConfig().ProbeSource})
	if err := b.Apply(ns, rules); err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	if err := redirected(ns, proxy[0], trialPatience); err != nil {
		return fmt.Errorf("trial: a connection was not redirected as it should be: %w", err)
	}
	return nil
}

// trialNamespace makes a network namespace with a pod's interface. The caller closes it, and it is gone.
func trialNamespace() (ns *os.File, err error) {
	err = netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := trialInterface(ns); err != nil {
		ns.Close()
		return nil, fmt.Errorf("make a network interface: %w", err)
	}
	return ns, nil
}

func trialInterface(ns *os.File) error {
	h, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	const name = "eth0"
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer"}); err != nil {
		return err
	}
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	pod := trialPod()
	address := &net.IPNet{IP: pod.Addr().AsSlice(), Mask: net.CIDRMask(pod.Bits(), pod.Addr().BitLen())}
	return errors.Join(h.AddrAdd(l, &netlink.Addr{IPNet: address}), h.LinkSetUp(l))
}

// trialProxy listens as the node's proxy does, outbound first.
func trialProxy(ns *os.File) ([]*net.TCPListener, error) {
	file, err := netns.Open(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()))
	if err != nil {
		return nil, err
	}
	in, err := netx.NewNS(file, netx.Options{Mark: plan.OwnMark().Value, RequireTransparent: true})
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var out []*net.TCPListener
	for _, port := range []uint16{plan.PortOutbound, plan.PortInbound} {
		l, err := in.Listen(context.Background(), "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, err
		}
		out = append(out, l.(*net.TCPListener))
	}
	return out, nil
}

// redirected connects to somebody elsewhere, and wants the listener to get it: with both ends' addresses.
func redirected(ns *os.File, listener *net.TCPListener, patience time.Duration) error {
	var conn net.Conn
	err := netns.Do(ns, func() (err error) {
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(false) // as the sockets that it is about
		conn, err = d.Dial("tcp4", trialPeer().String())
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := listener.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	got, err := listener.Accept()
	if err != nil {
		return err
	}
	defer got.Close()
	if got.LocalAddr().String() != trialPeer().String() || got.RemoteAddr().String() != conn.LocalAddr().String() {
		return fmt.Errorf("the proxy sees one from %s to %s", got.RemoteAddr(), got.LocalAddr())
	}
	return nil
}
