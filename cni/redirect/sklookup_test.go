package redirect_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// patience bounds what is waited for.
const patience = time.Minute

// accelerated is a bed with sklookup, and the directory of its pins.
func accelerated(t *testing.T) (b *bed, dir string) {
	t.Helper()
	dir = nettest.PinDir(t)
	backend, err := sklookup.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Close)
	return newBed(t, backend), dir
}

func number(t *testing.T, ns *os.File) uint32 {
	t.Helper()
	id, err := netns.Identify(ns)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(id.Ino)
}

// attached counts the links of the kernel at a network namespace, whoever holds them.
func attached(t *testing.T, ns *os.File) int {
	t.Helper()
	n, want := 0, number(t, ns)
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			continue // it has gone meanwhile
		}
		if about := info.NetNs(); about != nil && about.NetnsInode == want {
			n++
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// policy is all policy rules of a namespace, as text.
func policy(t *testing.T, ns *os.File) []string {
	t.Helper()
	h, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var out []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := h.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			out = append(out, strconv.Itoa(family)+" "+r.String()+" "+strconv.Itoa(r.Goto))
		}
	}
	slices.Sort(out)
	return out
}

func TestSKLookupUsesNoPacketFilter(t *testing.T) {
	b, _ := accelerated(t)
	b.apply(t, plan.Pod{})
	c, err := nftables.New(nftables.WithNetNSFd(int(b.pod.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil || len(tables) > 0 {
		t.Errorf("tables: %v, %v", tables, err)
	}
}

func TestSKLookupLeavesNothing(t *testing.T) {
	b, dir := accelerated(t)
	before := policy(t, b.pod)
	for name, end := range map[string]func(plan.Rules) error{
		"purge": func(r plan.Rules) error { return b.backend.Purge(b.pod, r) },
		"remove and purge": func(r plan.Rules) error {
			return errors.Join(b.backend.Remove(b.pod), b.backend.Purge(b.pod, r))
		},
	} {
		rules := b.apply(t, plan.Pod{BypassInbound: name == "purge"})
		if n := attached(t, b.pod); n != 1 {
			t.Errorf("%s: %d programs are attached", name, n)
		}
		if err := end(rules); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, patience, name+": no program is left", func() bool { return attached(t, b.pod) == 0 }, nil)
		if after := policy(t, b.pod); !slices.Equal(before, after) {
			t.Errorf("%s: the policy rules were\n%s\nand are\n%s", name, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		if _, err := os.Stat(filepath.Join(dir, strconv.FormatUint(uint64(number(t, b.pod)), 10))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: pins are left: %v", name, err)
		}
	}
}

// What an application may do without a privilege must not get it past the proxy.
func TestSKLookupCannotBeEscaped(t *testing.T) {
	b, _ := accelerated(t)
	b.apply(t, plan.Pod{})
	dial := func(network, addr string, d net.Dialer) string {
		t.Helper()
		var c net.Conn
		d.Timeout = time.Second // what is refused waits in vain
		d.SetMultipathTCP(false)
		err := netns.Do(b.pod, func() (err error) { c, err = d.DialContext(t.Context(), network, addr); return err })
		if err != nil {
			return "no connection"
		}
		defer c.Close()
		banner, err := nettest.Read(c)
		if err != nil {
			t.Fatal(err)
		}
		who, _, _ := strings.Cut(banner, " ")
		return who
	}
	option := func(set func(fd int) error) func(string, string, syscall.RawConn) error {
		return func(_, _ string, c syscall.RawConn) error {
			var err error
			ctlErr := c.Control(func(fd uintptr) { err = set(int(fd)) })
			return errors.Join(ctlErr, err)
		}
	}
	for _, f := range []struct{ pod, peer string }{{podV4, peerV4}, {podV6, peerV6}} {
		addr := net.JoinHostPort(f.peer, "8080")
		for name, d := range map[string]net.Dialer{
			"bound to loopback":   {Control: option(func(fd int) error { return unix.BindToDevice(fd, "lo") })},
			"on the link only":    {Control: option(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1) })},
			"from its address":    {LocalAddr: &net.TCPAddr{IP: net.ParseIP(f.pod)}},
			"with a foreign mark": {Control: option(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x538) })},
		} {
			if got := dial("tcp", addr, d); got != "zt-out" && got != "no connection" {
				t.Errorf("%s %s: it is %s that answers", name, f.peer, got)
			}
		}
		bound := net.Dialer{Control: option(func(fd int) error { return unix.BindToDevice(fd, "eth0") })}
		want(t, "bound to the interface", dial("tcp", addr, bound), "zt-out")
		want(t, "bound to the interface, DNS over TCP", dial("tcp", net.JoinHostPort(f.peer, "53"), bound), "zt-dns")
		var c net.Conn
		nettest.Do(t, b.pod, func() (err error) {
			c, err = bound.DialContext(t.Context(), "udp", net.JoinHostPort(f.peer, "53"))
			return err
		})
		defer c.Close()
		got, err := nettest.Exchange(c, "?")
		want(t, "bound to the interface, DNS", got, "zt-dns?")
		if err != nil {
			t.Error(err)
		}
	}
	// Nor may a peer get past it.
	for _, d := range []nettest.Socket{{Mark: 0x539}, {Mark: 0x111}} {
		want(t, "marked outside", greet(t, b.peer, podV4+":8080", d), "zt-in "+peerV4+" "+podV4+":8080")
	}
	// Plain inbound to the proxy's other ports is inbound like any.
	for _, port := range []string{"15001", "15006", "15053"} {
		want(t, "port "+port, greet(t, b.peer, podV4+":"+port, nettest.Socket{}), "zt-in "+peerV4+" "+podV4+":"+port)
	}
}

// An application that has port 53 on all addresses, such as a name server that asks others, gets its answers from theirs.
func TestSKLookupAnswersNameServers(t *testing.T) {
	b, _ := accelerated(t)
	nettest.ServeUDP(nettest.ListenUDP(t, b.pod, ":53"), "app")
	b.apply(t, plan.Pod{})
	for _, peer := range []string{peerV4, peerV6} {
		got, err := nettest.Exchange(nettest.Dial(t, b.pod, "udp", net.JoinHostPort(peer, "53"), nettest.Socket{}), "?")
		want(t, peer, got, "zt-dns?")
		if err != nil {
			t.Error(err)
		}
	}
}

// A pod that may configure its network cannot take the program out, nor be redirected to by others.
func TestSKLookupIsNotThePodsToDetach(t *testing.T) {
	b, _ := accelerated(t)
	b.apply(t, plan.Pod{})
	var ids []link.ID
	it := new(link.Iterator)
	for it.Next() {
		if info, err := it.Link.Info(); err == nil && info.NetNs() != nil && info.NetNs().NetnsInode == number(t, b.pod) {
			ids = append(ids, info.ID)
		}
	}
	it.Close()
	if len(ids) != 1 {
		t.Fatalf("links: %v", ids)
	}
	problems := make(chan error, 3)
	go func() {
		runtime.LockOSThread() // for good: the thread has lost its privileges
		if err := unprivileged(b.pod, 1<<unix.CAP_NET_ADMIN|1<<unix.CAP_NET_RAW); err != nil {
			problems <- err
			close(problems)
			return
		}
		if l, err := link.NewFromID(ids[0]); err == nil {
			l.Close()
			problems <- errors.New("the link can be opened by its number")
		}
		pass := asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
		if _, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, Instructions: pass}); err == nil {
			problems <- errors.New("another program can be loaded")
		}
		close(problems)
	}()
	for err := range problems {
		t.Error(err)
	}
	// Even without its routes, the pod's inbound connections pass the proxy.
	h, err := netlink.NewHandleAt(vns.NsHandle(b.pod.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	list, err := h.RuleList(netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r.Priority > 2 && r.Priority < 100 {
			if err := h.RuleDel(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	want(t, "inbound", greet(t, b.peer, podV4+":8080", nettest.Socket{}), "zt-in "+peerV4+" "+podV4+":8080")
	if d, err := b.backend.Inspect(b.pod, plan.Plan(plan.Pod{}, plan.DefaultConfig())); err != nil || len(d) == 0 {
		t.Errorf("nobody notices: %q, %v", d, err)
	}
	b.apply(t, plan.Pod{})
	want(t, "repaired", greet(t, b.pod, peerV4+":8080", nettest.Socket{}), "zt-out "+podV4+" "+peerV4+":8080")
}

// unprivileged leaves the calling thread in ns with only those capabilities.
func unprivileged(ns *os.File, capabilities uint32) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: capabilities, Permitted: capabilities}}
	return unix.Capset(&header, &data[0])
}

// Without a listener of the proxy nothing reaches the application, and nothing leaves.
func TestSKLookupFailsClosed(t *testing.T) {
	backend := nettest.SKLookup(t)
	pod, peer := nettest.New(t), nettest.New(t)
	nettest.Link(t, pod, peer, []string{podV4 + "/24"}, []string{peerV4 + "/24"})
	rules := plan.Plan(plan.Pod{}, plan.DefaultConfig())
	if err := backend.Apply(pod, rules); !errors.Is(err, redirect.ErrNoListener) {
		t.Fatalf("without a proxy: %v", err)
	}
	// A listener that lacks the proxy's mark is the application's.
	app := nettest.ListenAs(t, pod, ":15001", nettest.Socket{Transparent: true})
	if err := backend.Apply(pod, rules); !errors.Is(err, redirect.ErrNoListener) {
		t.Fatalf("without a proxy: %v", err)
	}
	app.Close()
	var proxy []net.Listener
	for _, addr := range []string{":15001", ":15006", "127.0.0.1:15053", "[::1]:15053"} {
		proxy = append(proxy, nettest.ListenAs(t, pod, addr, ztunnel()))
	}
	nettest.ListenRedirected(t, pod, "127.0.0.1:15053", ztunnel())
	nettest.ListenRedirected(t, pod, "[::1]:15053", ztunnel())
	if err := backend.Apply(pod, rules); err != nil {
		t.Fatal(err)
	}
	nettest.Serve(nettest.Listen(t, pod, ":8080"), "app")
	nettest.Serve(nettest.Listen(t, peer, ":8080"), "peer")
	for _, l := range proxy {
		l.Close()
	}
	for ns, addr := range map[*os.File]string{pod: peerV4 + ":8080", peer: podV4 + ":8080"} {
		err := netns.Do(ns, func() error {
			d := net.Dialer{Timeout: 2 * time.Second}
			c, err := d.DialContext(t.Context(), "tcp", addr)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			t.Errorf("%s answers without a proxy", addr)
		}
	}
	for _, addr := range []string{":15001", ":15006", "127.0.0.1:15053", "[::1]:15053"} {
		nettest.Serve(nettest.ListenAs(t, pod, addr, ztunnel()), "zt"+addr)
	}
	if err := backend.Apply(pod, rules); err != nil {
		t.Fatal(err)
	}
	want(t, "a new proxy", greet(t, peer, podV4+":8080", nettest.Socket{}), "zt:15006 "+peerV4+" "+podV4+":8080")
}

func TestSKLookupRefusesWhatItDoesNotKnow(t *testing.T) {
	b, _ := accelerated(t)
	other := nettest.New(t)
	h, err := netlink.NewHandleAt(vns.NsHandle(b.pod.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1"}, PeerName: "net1", PeerNamespace: netlink.NsFd(other.Fd())}); err != nil {
		t.Fatal(err)
	}
	l, err := h.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	if err := b.backend.Apply(b.pod, plan.Plan(plan.Pod{}, plan.DefaultConfig())); !errors.Is(err, redirect.ErrUnsuitable) {
		t.Errorf("a pod with two interfaces: %v", err)
	}
	if n := attached(t, b.pod); n != 0 {
		t.Errorf("%d programs are attached", n)
	}
}

// The agent goes and comes; the redirection stays.
func TestSKLookupOutlivesTheAgent(t *testing.T) {
	b, dir := accelerated(t)
	rules := b.apply(t, plan.Pod{})
	b.backend.(*sklookup.Backend).Close()
	runtime.GC() // descriptors without an owner are closed
	captured := func(when string) {
		t.Helper()
		want(t, when, greet(t, b.pod, peerV4+":8080", nettest.Socket{}), "zt-out "+podV4+" "+peerV4+":8080")
		want(t, when, greet(t, b.peer, podV4+":8080", nettest.Socket{}), "zt-in "+peerV4+" "+podV4+":8080")
	}
	captured("without an agent")
	next, err := sklookup.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if d, err := next.Inspect(b.pod, rules); err != nil || len(d) > 0 {
		t.Errorf("drift: %q, %v", d, err)
	}
	if n, err := next.Sweep(); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	captured("after a sweep")
	// Somebody takes the pins away.
	if err := next.Forget(b.pod); err != nil {
		t.Fatal(err)
	}
	if d, err := next.Inspect(b.pod, rules); err != nil || len(d) == 0 {
		t.Errorf("nobody notices: %q, %v", d, err)
	}
	if err := next.Apply(b.pod, rules); err != nil {
		t.Fatal(err)
	}
	captured("repaired")
}

func TestSKLookupSweepsWhatPodsLeave(t *testing.T) {
	b, dir := accelerated(t)
	b.apply(t, plan.Pod{})
	inode := number(t, b.pod)
	pins := filepath.Join(dir, strconv.FormatUint(uint64(inode), 10))
	// The pins of a pod that is gone: a link that serves another namespace.
	gone := filepath.Join(dir, strconv.FormatUint(uint64(inode)+1, 10))
	if err := os.Rename(pins, gone); err != nil {
		t.Fatal(err)
	}
	if n, err := b.backend.(*sklookup.Backend).Sweep(); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	wait.Until(t, patience, "the program goes with its pin", func() bool { return attached(t, b.pod) == 0 }, nil)
}

// Two proxies share a pod for a while. What is queued at the first when it closes its listeners goes to the second.
func TestSKLookupHandsOver(t *testing.T) {
	backend := nettest.SKLookup(t)
	pod, peer := nettest.New(t), nettest.New(t)
	nettest.Link(t, pod, peer, []string{podV4 + "/24"}, []string{peerV4 + "/24"})
	shared := ztunnel()
	open := func() (list []*net.TCPListener) {
		for _, addr := range []string{":15001", ":15006", "127.0.0.1:15053"} {
			list = append(list, nettest.ListenAs(t, pod, addr, shared))
		}
		nettest.ListenRedirected(t, pod, "127.0.0.1:15053", shared)
		return list
	}
	config := plan.DefaultConfig()
	config.IPv6 = false
	rules := plan.Plan(plan.Pod{}, config)
	shared.ReusePort, shared.Mark = true, 0x539 // as proxies had it once
	old := open()
	shared.Mark = ztunnel().Mark
	if err := backend.Apply(pod, rules); err != nil {
		t.Fatal(err)
	}
	var queued []net.Conn
	for range 30 {
		queued = append(queued, nettest.Dial(t, pod, "tcp", peerV4+":80", nettest.Socket{}), nettest.Dial(t, peer, "tcp", podV4+":80", nettest.Socket{}))
	}
	next := open()
	if d, err := backend.Inspect(pod, rules); err != nil || len(d) == 0 {
		t.Errorf("the next proxy's listeners are not missed: %q, %v", d, err)
	}
	if err := backend.Apply(pod, rules); err != nil {
		t.Fatal(err)
	}
	for i, l := range next {
		nettest.Serve(l, "next"+strconv.Itoa(i))
	}
	for _, l := range old {
		l.Close()
	}
	queued = append(queued, nettest.Dial(t, pod, "tcp", peerV4+":80", nettest.Socket{}), nettest.Dial(t, peer, "tcp", podV4+":80", nettest.Socket{}))
	lost := 0
	for _, c := range queued {
		if banner, err := nettest.Read(c); err != nil || !strings.HasPrefix(banner, "next") {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d connections are lost", lost, len(queued))
	}
}
