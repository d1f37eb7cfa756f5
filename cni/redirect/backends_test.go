package redirect_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/iptables"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

const (
	podV4, peerV4 = "10.9.0.2", "10.9.0.1"
	podV6, peerV6 = "fd09::2", "fd09::1"
)

// bed is a pod and its peer, with an app at :8080 on both sides and a mock ztunnel in the pod.
type bed struct {
	pod, peer *os.File
	backend   redirect.Backend
}

// backends are all of them; every test here holds for each.
func backends(t *testing.T) map[string]redirect.Backend {
	t.Helper()
	out := map[string]redirect.Backend{redirect.NFT: nft.Backend{}}
	for _, kind := range []string{iptables.NFT, iptables.Legacy} {
		tool, err := iptables.Find(kind, nil, filepath.Join(t.TempDir(), "lock"))
		if err != nil {
			t.Fatal(err)
		}
		out[redirect.IPTables+"-"+kind] = iptables.Backend{Tool: tool, IPv6: true}
	}
	out[redirect.SKLookup] = nettest.SKLookup(t)
	return out
}

// each runs a test on a bed of its own for every back end.
func each(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Helper()
	for name, backend := range backends(t) {
		t.Run(name, func(t *testing.T) { test(t, newBed(t, backend)) })
	}
}

func newBed(t *testing.T, backend redirect.Backend) *bed {
	t.Helper()
	b := &bed{pod: nettest.New(t), peer: nettest.New(t), backend: backend}
	nettest.Link(t, b.pod, b.peer,
		[]string{podV4 + "/24", podV6 + "/64"},
		[]string{peerV4 + "/24", peerV6 + "/64", "169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"})
	serve := func(ns *os.File, addr, name string) { nettest.Serve(nettest.Listen(t, ns, addr), name) }
	serve(b.pod, ":8080", "app")
	serve(b.peer, ":8080", "peer")
	serve(b.peer, ":53", "peerdns")
	proxy := func(addr, name string) { nettest.Serve(nettest.ListenAs(t, b.pod, addr, ztunnel()), name) }
	proxy(":15001", "zt-out")
	proxy(":15006", "zt-in")
	proxy(":15008", "zt-hbone")
	proxy("127.0.0.1:15053", "zt-dns")
	proxy("[::1]:15053", "zt-dns")
	nettest.ServeUDP(nettest.ListenUDP(t, b.peer, peerV4+":53"), "peerdns")
	nettest.ServeUDP(nettest.ListenUDP(t, b.peer, "["+peerV6+"]:53"), "peerdns")
	nettest.ServeUDP(nettest.ListenRedirected(t, b.pod, "127.0.0.1:15053", ztunnel()), "zt-dns")
	nettest.ServeUDP(nettest.ListenRedirected(t, b.pod, "[::1]:15053", ztunnel()), "zt-dns")
	return b
}

// ztunnel is how the proxy makes sockets that answer.
func ztunnel() nettest.Socket { return nettest.Socket{Mark: 0x1539, Transparent: true} }

func (b *bed) apply(t *testing.T, p plan.Pod) plan.Rules {
	t.Helper()
	rules := plan.Plan(p, plan.DefaultConfig())
	if err := b.backend.Apply(b.pod, rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

// greet dials and returns the banner, "who peer original-destination".
func greet(t *testing.T, ns *os.File, addr string, s nettest.Socket) string {
	t.Helper()
	banner, err := nettest.Read(nettest.Dial(t, ns, "tcp", addr, s))
	if err != nil {
		t.Fatalf("banner of %s: %v", addr, err)
	}
	return strings.TrimSpace(banner)
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestNewConnectionsAreCaptured(t *testing.T) { each(t, newConnectionsAreCaptured) }

func newConnectionsAreCaptured(t *testing.T, b *bed) {
	t.Helper()
	b.apply(t, plan.Pod{})
	none := nettest.Socket{}
	own := nettest.Socket{Mark: 0x539}
	for _, f := range []struct{ name, pod, peer, probe string }{
		{"ipv4", podV4, peerV4, "169.254.7.127"},
		{"ipv6", podV6, peerV6, "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"},
	} {
		t.Run(f.name, func(t *testing.T) {
			at := func(host, port string) string { return net.JoinHostPort(host, port) }
			probe := nettest.Socket{Local: netip.MustParseAddr(f.probe)}
			want(t, "outbound", greet(t, b.pod, at(f.peer, "8080"), none), "zt-out "+f.pod+" "+at(f.peer, "8080"))
			want(t, "inbound", greet(t, b.peer, at(f.pod, "8080"), none), "zt-in "+f.peer+" "+at(f.pod, "8080"))
			want(t, "inbound hbone", greet(t, b.peer, at(f.pod, "15008"), none), "zt-hbone "+f.peer+" "+at(f.pod, "15008"))
			want(t, "ztunnel's own", greet(t, b.pod, at(f.peer, "8080"), own), "peer "+f.pod+" "+at(f.peer, "8080"))
			want(t, "probe", greet(t, b.peer, at(f.pod, "8080"), probe), "app "+f.probe+" "+at(f.pod, "8080"))
			want(t, "self", greet(t, b.pod, at(f.pod, "8080"), none), "app "+f.pod+" "+at(f.pod, "8080"))
			want(t, "dns tcp", greet(t, b.pod, at(f.peer, "53"), none), "zt-dns "+f.pod+" "+at(f.peer, "53"))
			got, err := nettest.Exchange(nettest.Dial(t, b.pod, "udp", at(f.peer, "53"), none), "?")
			want(t, "dns udp", got, "zt-dns?")
			if err != nil {
				t.Error(err)
			}
			got, err = nettest.Exchange(nettest.Dial(t, b.pod, "udp", at(f.peer, "53"), own), "?")
			want(t, "ztunnel's dns", got, "peerdns?")
			if err != nil {
				t.Error(err)
			}
		})
	}
	want(t, "loopback", greet(t, b.pod, "127.0.0.1:8080", none), "app 127.0.0.1 127.0.0.1:8080")
	want(t, "loopback", greet(t, b.pod, "[::1]:8080", none), "app ::1 [::1]:8080")
}

// ztunnel dials the app as the peer: the app must see the peer's address and its answers must come back.
func TestSourceAddressOfThePeer(t *testing.T) { each(t, sourceAddressOfThePeer) }

func sourceAddressOfThePeer(t *testing.T, b *bed) {
	t.Helper()
	b.apply(t, plan.Pod{})
	for pod, peer := range map[string]string{podV4: peerV4, podV6: peerV6} {
		c := nettest.Dial(t, b.pod, "tcp", net.JoinHostPort(pod, "8080"),
			nettest.Socket{Mark: 0x539, Transparent: true, Local: netip.MustParseAddr(peer)})
		banner, err := nettest.Read(c)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "app sees", strings.TrimSpace(banner), "app "+peer+" "+net.JoinHostPort(pod, "8080"))
		echo, err := nettest.Exchange(c, "!")
		if err != nil || echo != "app!" {
			t.Errorf("echo %q, %v", echo, err)
		}
	}
}

func TestOpenConnectionsSurviveEnrolmentAndUnenrolment(t *testing.T) {
	each(t, openConnectionsSurviveEnrolmentAndUnenrolment)
}

func openConnectionsSurviveEnrolmentAndUnenrolment(t *testing.T, b *bed) {
	t.Helper()
	none := nettest.Socket{}
	echo := func(when string, c net.Conn, who string) {
		t.Helper()
		got, err := nettest.Exchange(c, when)
		if err != nil || got != who+when {
			t.Errorf("%s: echo %q, %v; want %q", when, got, err, who+when)
		}
	}
	open := func(ns *os.File, addr, who string) net.Conn {
		t.Helper()
		c := nettest.Dial(t, ns, "tcp", addr, none)
		banner, err := nettest.Read(c)
		if err != nil || !strings.HasPrefix(banner, who+" ") {
			t.Fatalf("%s answered %q, %v; want %s", addr, banner, err, who)
		}
		return c
	}
	dns := nettest.Dial(t, b.pod, "udp", peerV4+":53", none)
	before := map[string][]net.Conn{
		"peer": {open(b.pod, peerV4+":8080", "peer"), open(b.pod, "["+peerV6+"]:8080", "peer")},
		"app":  {open(b.peer, podV4+":8080", "app"), open(b.peer, "["+podV6+"]:8080", "app")},
	}
	echoAll := func(when string, conns map[string][]net.Conn) {
		t.Helper()
		for who, cs := range conns {
			for _, c := range cs {
				echo(when, c, who)
			}
		}
	}
	echo("dns before", dns, "peerdns")
	b.apply(t, plan.Pod{})
	echoAll("enrolled", before)
	echo("dns enrolled", dns, "zt-dns")

	captured := map[string][]net.Conn{
		"zt-out": {open(b.pod, peerV4+":8080", "zt-out"), open(b.pod, "["+peerV6+"]:8080", "zt-out")},
		"zt-in":  {open(b.peer, podV4+":8080", "zt-in"), open(b.peer, "["+podV6+"]:8080", "zt-in")},
	}
	b.apply(t, plan.Pod{})
	echoAll("applied again", before)
	echoAll("applied again", captured)

	if err := b.backend.Remove(b.pod); err != nil {
		t.Fatal(err)
	}
	echoAll("removed", before)
	echoAll("removed", captured)
	echo("dns removed", dns, "peerdns")
	open(b.pod, peerV4+":8080", "peer")
	open(b.peer, podV4+":8080", "app")
}

func TestPodsOwnChoices(t *testing.T) { each(t, podsOwnChoices) }

func podsOwnChoices(t *testing.T, b *bed) {
	t.Helper()
	none := nettest.Socket{}
	b.apply(t, plan.Pod{BypassInbound: true, DNS: plan.Off})
	want(t, "inbound", greet(t, b.peer, podV4+":8080", none), "app "+peerV4+" "+podV4+":8080")
	want(t, "outbound", greet(t, b.pod, peerV4+":8080", none), "zt-out "+podV4+" "+peerV4+":8080")
	got, err := nettest.Exchange(nettest.Dial(t, b.pod, "udp", peerV4+":53", none), "?")
	if err != nil {
		t.Error(err)
	}
	want(t, "dns", got, "peerdns?")
}

func TestInspectFindsDrift(t *testing.T) { each(t, inspectFindsDrift) }

func inspectFindsDrift(t *testing.T, b *bed) {
	t.Helper()
	rules := plan.Plan(plan.Pod{}, plan.DefaultConfig())
	drift := func() []string {
		t.Helper()
		d, err := b.backend.Inspect(b.pod, rules)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if len(drift()) == 0 {
		t.Error("a bare namespace shows no drift")
	}
	b.apply(t, plan.Pod{})
	if d := drift(); len(d) != 0 {
		t.Errorf("drift after Apply: %q", d)
	}
	b.apply(t, plan.Pod{})
	if d := drift(); len(d) != 0 {
		t.Errorf("drift after the second Apply: %q", d)
	}
	b.apply(t, plan.Pod{DNS: plan.Off})
	if len(drift()) == 0 {
		t.Error("other rules show no drift")
	}
	b.apply(t, plan.Pod{})
	if err := b.backend.Remove(b.pod); err != nil {
		t.Fatal(err)
	}
	if len(drift()) == 0 {
		t.Error("removed rules show no drift")
	}
	if err := b.backend.Purge(b.pod, rules); err != nil {
		t.Fatal(err)
	}
	if err := b.backend.Purge(b.pod, rules); err != nil {
		t.Errorf("second Purge: %v", err)
	}
	if err := b.backend.Remove(b.pod); err != nil {
		t.Errorf("Remove where nothing is: %v", err)
	}
}

// A node that changes its back end rewrites the rules of its pods while they talk.
func TestTheBackEndChangesUnderOpenConnections(t *testing.T) {
	all := backends(t)
	for before, old := range all {
		for after, next := range all {
			if before == after {
				continue
			}
			t.Run(before+" to "+after, func(t *testing.T) {
				b := newBed(t, old)
				rules := b.apply(t, plan.Pod{})
				none := nettest.Socket{}
				conns := []net.Conn{
					nettest.Dial(t, b.pod, "tcp", peerV4+":8080", none), nettest.Dial(t, b.peer, "tcp", podV4+":8080", none),
					nettest.Dial(t, b.pod, "tcp", "["+peerV6+"]:8080", none), nettest.Dial(t, b.peer, "tcp", "["+podV6+"]:8080", none),
				}
				for _, c := range conns {
					if _, err := nettest.Read(c); err != nil {
						t.Fatal(err)
					}
				}
				b.backend = redirect.Switched{Backend: next, Before: []redirect.Backend{old}}
				b.apply(t, plan.Pod{})
				for _, c := range conns {
					if got, err := nettest.Exchange(c, "!"); err != nil || !strings.HasPrefix(got, "zt-") {
						t.Errorf("an open connection says %q, %v", got, err)
					}
				}
				if d, err := next.Inspect(b.pod, rules); err != nil || len(d) > 0 {
					t.Errorf("drift: %q, %v", d, err)
				}
				if d, err := old.Inspect(b.pod, plan.Rules{Chains: nil, Routes: rules.Routes, Sysctls: rules.Sysctls}); err != nil || len(d) > 0 {
					t.Errorf("the old back end left %q, %v", d, err)
				}
				want(t, "outbound", greet(t, b.pod, peerV4+":8080", none), "zt-out "+podV4+" "+peerV4+":8080")
				want(t, "inbound", greet(t, b.peer, podV4+":8080", none), "zt-in "+peerV4+" "+podV4+":8080")
				if err := b.backend.Remove(b.pod); err != nil {
					t.Fatal(err)
				}
				want(t, "removed", greet(t, b.peer, podV4+":8080", none), "app "+peerV4+" "+podV4+":8080")
			})
		}
	}
}

func TestABackEndThatWasNeverThereLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		rules := plan.Plan(plan.Pod{}, plan.DefaultConfig())
		if err := b.backend.Remove(b.pod); err != nil {
			t.Error(err)
		}
		if err := b.backend.Clear(b.pod); err != nil {
			t.Error(err)
		}
		b.apply(t, plan.Pod{})
		if err := b.backend.Purge(b.pod, rules); err != nil {
			t.Error(err)
		}
		want(t, "purged", greet(t, b.peer, podV4+":8080", nettest.Socket{}), "app "+peerV4+" "+podV4+":8080")
	})
}
