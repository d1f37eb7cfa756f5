package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

const (
	clientIP, serverIP = "10.77.0.1", "10.77.0.2"
	appPort            = "8080"
)

// bed is two pods on one wire, each with the redirection and a proxy instance of its own.
type bed struct {
	builder        *l4.Builder
	client, server *netx.NS // unmarked: what the applications use
	log            *lockedBuffer
	proxies        []*Instance
}

// lockedBuffer collects log lines of several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

const redirection = `table inet mesh {
 chain out { type nat hook output priority -100; meta mark and 0xfff == 0x539 return; ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :15001; }
 chain in { type nat hook prerouting priority -100; tcp dport != 15008 meta l4proto tcp redirect to :15006; }
 chain mark_in { type filter hook prerouting priority -150; meta mark and 0xfff == 0x539 ct mark set 0x111; }
 chain mark_out { type route hook output priority -150; ct mark and 0xfff == 0x111 meta mark set 0x111; }
}`

func run(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func openNS(t *testing.T, name string, mark uint32) *netx.NS {
	t.Helper()
	file, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netx.NewNS(file, netx.Options{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func newBed(t *testing.T) *bed {
	t.Helper()
	suffix := fmt.Sprint(os.Getpid())
	names := []string{"isthprx-a" + suffix, "isthprx-b" + suffix}
	for _, name := range names {
		run(t, "", "ip", "netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	run(t, "", "ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
	for i, ip := range []string{clientIP, serverIP} {
		for _, line := range []string{
			"ip link set lo up", "ip link set eth0 up", "ip addr add " + ip + "/24 dev eth0",
			"ip rule add fwmark 0x111/0xfff pref 32764 lookup 100", "ip route add local default dev lo table 100",
		} {
			run(t, "", append([]string{"ip", "netns", "exec", names[i]}, strings.Fields(line)...)...)
		}
		run(t, redirection, "ip", "netns", "exec", names[i], "nft", "-f", "-")
	}
	b := &bed{client: openNS(t, names[0], 0), server: openNS(t, names[1], 0), log: &lockedBuffer{}}
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	manager := certs.NewManager(ca, certs.ManagerConfig{})
	t.Cleanup(manager.Close)
	store := l4.NewStore()
	b.builder = l4.NewBuilder(store)
	b.apply(t, pod("client", clientIP, "node-a", true), pod("server", serverIP, "node-b", true))
	log, _ := telemetry.NewLogger(b.log, telemetry.Options{Level: slog.LevelDebug})
	for i, name := range []string{"client", "server"} {
		metrics, err := NewMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		factory := NewFactory(Deps{
			Store: store, Certs: manager, Metrics: metrics, AccessLog: telemetry.Scoped(log, "access"), Log: log,
			Config: Config{Node: "node-" + string(rune('a'+i)), ResponseBaggage: true, IPv6: true},
		})
		instance, err := factory.Start(t.Context(), Pod{
			UID: name, Info: Info{Name: name, Namespace: "shop", ServiceAccount: name}, Net: openNS(t, names[i], 0x539),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			instance.Drain(ended)
		})
		b.proxies = append(b.proxies, instance)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("proxy log:\n%s", b.log)
		}
	})
	return b
}

func pod(name, ip, node string, hbone bool) *workload.Address {
	w := &workload.Workload{
		Uid: "c//Pod/shop/" + name, Name: name, Namespace: "shop", ServiceAccount: name, Node: node, WorkloadName: name,
		CanonicalName: name, CanonicalRevision: "v1", Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()},
	}
	if hbone {
		w.TunnelProtocol = workload.TunnelProtocol_HBONE
	}
	return &workload.Address{Type: &workload.Address_Workload{Workload: w}}
}

func encode(t *testing.T, name string, m proto.Message) l4.Resource {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return l4.Resource{Name: name, Any: packed}
}

func (b *bed) apply(t *testing.T, addresses ...*workload.Address) {
	t.Helper()
	for _, a := range addresses {
		if rejected := b.builder.ApplyAddresses([]l4.Resource{encode(t, a.GetWorkload().GetUid(), a)}, nil); len(rejected) > 0 {
			t.Fatal(rejected)
		}
	}
}

func (b *bed) policy(t *testing.T, p *security.Authorization) {
	t.Helper()
	if rejected := b.builder.ApplyPolicies([]l4.Resource{encode(t, p.GetNamespace()+"/"+p.GetName(), p)}, nil); len(rejected) > 0 {
		t.Fatal(rejected)
	}
}

// app answers each connection with a greeting that names its peer, and echoes.
func (b *bed) app(t *testing.T) {
	t.Helper()
	listener, err := b.server.Listen(t.Context(), "tcp", "0.0.0.0:"+appPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
				fmt.Fprintf(conn, "hello %s\n", host)
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

// dial opens a connection of the client application and reads the server's greeting.
func (b *bed) dial(t *testing.T) (net.Conn, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	conn, err := b.client.Dial(ctx, "tcp", netip.MustParseAddrPort(serverIP+":"+appPort), netip.Addr{})
	if err != nil {
		return nil, "", err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	greeting := make([]byte, len("hello "+clientIP+"\n"))
	_, err = io.ReadFull(conn, greeting)
	return conn, string(greeting), err
}

func TestTunnelBetweenTwoPods(t *testing.T) {
	b := newBed(t)
	b.app(t)
	conn, greeting, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	if greeting != "hello "+clientIP+"\n" {
		t.Errorf("the application saw %q: the source address is not kept", greeting)
	}
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = conn.Write(payload)
		_ = conn.(netx.Stream).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d of %d bytes came back after half-close: %v", len(got), len(payload), err)
	}
	b.waitLog(t, `direction="outbound"`, `direction="inbound"`,
		`src.identity="spiffe://cluster.local/ns/shop/sa/client"`, `dst.identity="spiffe://cluster.local/ns/shop/sa/server"`)
}

// waitLog waits until the log holds all texts.
func (b *bed) waitLog(t *testing.T, texts ...string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		log, missing := b.log.String(), ""
		for _, text := range texts {
			if !strings.Contains(log, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the log lacks %s", missing)
			return
		}
	}
}

func TestPolicyRefusesAndClosesLiveConnections(t *testing.T) {
	b := newBed(t)
	b.app(t)
	conn, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	b.policy(t, &security.Authorization{
		Name: "deny-client", Namespace: "shop", Scope: security.Scope_NAMESPACE, Action: security.Action_DENY,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{ServiceAccounts: []*security.ServiceAccountMatch{
			{Namespace: "shop", ServiceAccount: "client"},
		}}}}}}},
	})
	if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the open connection was not closed: %d, %v", n, err)
	}
	b.waitLog(t, "connection closed due to policy change")
	if _, _, err := b.dial(t); err == nil {
		t.Error("a new connection was allowed")
	}
	b.waitLog(t, "shop/deny-client")
}

func TestUnreachableTunnelNeverFallsBackToPlaintext(t *testing.T) {
	b := newBed(t)
	b.app(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	b.proxies[1].Drain(ended) // nobody listens on 15008 any more; the application still does
	run(t, "", "ip", "netns", "exec", "isthprx-b"+fmt.Sprint(os.Getpid()), "nft", "delete", "table", "inet", "mesh")
	if _, greeting, err := b.dial(t); err == nil {
		t.Errorf("the application was reached without the tunnel: %q", greeting)
	}
	b.waitLog(t, "connection complete")
}
