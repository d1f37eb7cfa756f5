package proxy

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

const (
	clientIP, serverIP = podtest.ClientIP, podtest.ServerIP
	appPort            = "8080"
)

// bed is two pods on one wire, each with the redirection, and the proxy instances that a test starts.
type bed struct {
	pair           podtest.Pair
	store          *l4.Store
	builder        *l4.Builder
	certs          *certs.Manager
	client, server *netx.NS // unmarked: what the applications use
	log            *podtest.Log
	proxies        []*Instance
	revoked        *revocations
	ca             *testkit.CA
	shared         *budget.Node
	sleepers       *netx.Sleepers
	metrics        *prometheus.Registry // of the server's proxy
}

// bareBed has no proxies, and nothing is known of the pods.
func bareBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{pair: podtest.NewPair(t), log: &podtest.Log{}, store: l4.NewStore()}
	b.client, b.server = podtest.Open(t, b.pair.Client, 0), podtest.Open(t, b.pair.Server, 0)
	var err error
	if b.sleepers, err = netx.NewSleepers(time.Millisecond); err != nil { // whatever is tested may sleep
		t.Fatal(err)
	}
	t.Cleanup(b.sleepers.Close)
	if b.ca, err = testkit.NewCA(); err != nil {
		t.Fatal(err)
	}
	b.certs = certs.NewManager(b.ca, certs.ManagerConfig{})
	t.Cleanup(b.certs.Close)
	b.builder = l4.NewBuilder(b.store)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("proxy log:\n%s", b.log)
		}
	})
	return b
}

// newBed has a proxy for each pod.
func newBed(t *testing.T) *bed {
	t.Helper()
	return newBedWith(t, budget.Limits{}, func(*Config) {})
}

// newBedWith has a proxy for each pod of one node, with limits.
func newBedWith(t *testing.T, limits budget.Limits, configure func(*Config)) *bed {
	t.Helper()
	b := bareBed(t)
	b.revoked, b.shared = &revocations{changed: make(chan struct{})}, budget.NewNode(limits)
	b.apply(t, pod("client", clientIP, "node-a", true), pod("server", serverIP, "node-b", true))
	for i, name := range []string{"client", "server"} {
		b.metrics = prometheus.NewRegistry()
		config := Config{Node: "node-" + string(rune('a'+i)), ResponseBaggage: true, IPv6: true, Transport: transport}
		configure(&config)
		b.start(t, name, []string{b.pair.Client, b.pair.Server}[i], b.metrics, Deps{Revocation: b.revoked, Config: config, Budget: b.shared})
	}
	return b
}

// start starts the proxy of a pod, which ends with the test. What the bed has of deps is added.
func (b *bed) start(t *testing.T, name, path string, registry *prometheus.Registry, deps Deps) {
	t.Helper()
	log, _ := telemetry.NewLogger(b.log, telemetry.Options{Level: slog.LevelDebug})
	deps.Store, deps.Certs, deps.AccessLog, deps.Log, deps.Sleepers = b.store, b.certs, telemetry.Scoped(log, "access"), log, b.sleepers
	var err error
	if deps.Metrics, err = NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	instance, err := NewFactory(deps).Start(t.Context(), Pod{
		UID: name, Info: Info{Name: name, Namespace: "shop", ServiceAccount: name}, Net: podtest.Open(t, path, 0x539),
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

// dial opens a connection of the client application and reads the server's greeting.
func (b *bed) dial(t *testing.T) (net.Conn, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := b.client.Dial(ctx, "tcp", netip.MustParseAddrPort(serverIP+":"+appPort), netip.Addr{})
	if err != nil {
		return nil, "", err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	greeting := make([]byte, len("hello "+clientIP+"\n"))
	_, err = io.ReadFull(conn, greeting)
	return conn, string(greeting), err
}

func TestTunnelBetweenTwoPods(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
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
	b.log.Wait(t, `direction="outbound"`, `direction="inbound"`,
		`src.identity="spiffe://cluster.local/ns/shop/sa/client"`, `dst.identity="spiffe://cluster.local/ns/shop/sa/server"`)
}

func TestPolicyRefusesAndClosesLiveConnections(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	conn, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	b.asleep(t, conn)
	b.policy(t, &security.Authorization{
		Name: "deny-client", Namespace: "shop", Scope: security.Scope_NAMESPACE, Action: security.Action_DENY,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{ServiceAccounts: []*security.ServiceAccountMatch{
			{Namespace: "shop", ServiceAccount: "client"},
		}}}}}}},
	})
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the open connection was not reset: %d, %v", n, err)
	}
	b.log.Wait(t, "connection closed due to policy change")
	if _, _, err := b.dial(t); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a new connection was not reset: %v", err)
	}
	b.log.Wait(t, "shop/deny-client")
}

func TestUnreachableTunnelNeverFallsBackToPlaintext(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	b.proxies[1].Drain(ended) // nobody listens on 15008 any more; the application still does
	podtest.StopRedirecting(t, b.pair.Server)
	if _, greeting, err := b.dial(t); err == nil {
		t.Errorf("the application was reached without the tunnel: %q", greeting)
	}
	b.log.Wait(t, "connection complete")
}

// strict is what the control plane sends for workloads under STRICT.
func strict() *security.Authorization {
	return &security.Authorization{
		Name: "istio_converted_static_strict", Namespace: "istio-system", Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{NotPrincipals: []*security.StringMatch{
			{MatchType: &security.StringMatch_Presence{}},
		}}}}}}},
	}
}

func TestStrictRefusesPlaintextAndAllowsTheTunnel(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	outside, err := os.Open(b.pair.Client)
	if err != nil {
		t.Fatal(err)
	}
	// The proxy's mark keeps a connection out of the redirection: it comes as from outside of the mesh.
	plain, err := netx.NewNS(outside, netx.Options{Mark: 0x539})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	direct := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		conn, err := plain.Dial(ctx, "tcp", netip.MustParseAddrPort(serverIP+":"+appPort), netip.Addr{})
		if err != nil {
			return "", err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		greeting := make([]byte, len("hello "+clientIP+"\n"))
		_, err = io.ReadFull(conn, greeting)
		return string(greeting), err
	}
	if greeting, err := direct(); err != nil || greeting != "hello "+clientIP+"\n" {
		t.Fatalf("plaintext under PERMISSIVE: %q, %v", greeting, err)
	}
	b.policy(t, strict())
	server := pod("server", serverIP, "node-b", true)
	server.GetWorkload().AuthorizationPolicies = []string{"istio-system/istio_converted_static_strict"}
	b.apply(t, server)
	if greeting, err := direct(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("plaintext under STRICT: %q, %v; want a reset", greeting, err)
	}
	b.log.Wait(t, "explicitly denied by istio-system/istio_converted_static_strict")
	if _, _, err := b.dial(t); err != nil {
		t.Errorf("the tunnel under STRICT: %v", err)
	}
}

func TestTunnelOverIPv6(t *testing.T) {
	b := newBed(t)
	for i, name := range []string{"client", "server"} {
		w := pod(name, []string{clientIP, serverIP}[i], "node-"+string(rune('a'+i)), true)
		w.GetWorkload().Addresses = append(w.GetWorkload().Addresses, netip.MustParseAddr([]string{podtest.ClientIP6, podtest.ServerIP6}[i]).AsSlice())
		b.apply(t, w)
	}
	podtest.Greet(t, b.server, "[::]:"+appPort)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := b.client.Dial(ctx, "tcp", netip.MustParseAddrPort("["+podtest.ServerIP6+"]:"+appPort), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	greeting := make([]byte, len("hello "+podtest.ClientIP6+"\n"))
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "hello "+podtest.ClientIP6+"\n" {
		t.Errorf("%q, %v", greeting, err)
	}
	conn.Close()
	b.log.Wait(t, `dst.hbone_addr=[`+podtest.ServerIP6+`]:`+appPort)
}

func TestTwoConnectionsShareOneTunnelPeer(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, _, err := b.dial(t); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	inbound, _ := b.proxies[1].Connections()
	peers := map[netip.AddrPort]bool{}
	for _, c := range inbound {
		peers[c.Src] = true
	}
	if len(inbound) != 20 || len(peers) != 1 {
		t.Errorf("%d connections over %d tunnels, want 20 over 1", len(inbound), len(peers))
	}
}

func TestUnknownPeerIdentityIsRefused(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	if _, _, err := b.dial(t); err != nil {
		t.Fatal(err)
	}
	// The control plane says that another identity lives at the server's address (of two, the first by uid counts): the
	// proxy there cannot prove it.
	imposter := pod("server", serverIP, "node-b", true)
	imposter.GetWorkload().Uid = "c//Pod/shop/imposter"
	imposter.GetWorkload().Name, imposter.GetWorkload().ServiceAccount, imposter.GetWorkload().Node = "imposter", "imposter", "node-c"
	b.apply(t, imposter)
	if _, greeting, err := b.dial(t); err == nil {
		t.Errorf("answered by somebody of another identity: %q", greeting)
	}
	b.log.Wait(t, "want one of [spiffe://cluster.local/ns/shop/sa/imposter]")
}

// revocations are decided by the test, by SPIFFE ID.
type revocations struct {
	mu      sync.Mutex // guards the rest
	id      string
	changed chan struct{}
}

func (r *revocations) Check(chain, _ []*x509.Certificate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(chain) > 0 && r.id != "" && chain[0].URIs[0].String() == r.id {
		return errors.New("certificate revoked")
	}
	return nil
}

func (r *revocations) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *revocations) revoke(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id = id
	close(r.changed)
	r.changed = make(chan struct{})
}

func TestRevokedPeersAreCutOffAndRefused(t *testing.T) {
	for who, reporter := range map[string]string{"client": reportDestination, "server": reportSource} {
		t.Run(who, func(t *testing.T) {
			b := newBed(t)
			podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
			conn, _, err := b.dial(t)
			if err != nil {
				t.Fatal(err)
			}
			b.asleep(t, conn)
			b.revoked.revoke("spiffe://cluster.local/ns/shop/sa/" + who)
			if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the open connection was not closed: %d, %v", n, err)
			}
			if _, _, err := b.dial(t); err == nil {
				t.Error("a new connection was made")
			}
			b.log.Wait(t, "certificate revoked")
			counted := 0.0
			for _, p := range b.proxies {
				counted += testutil.ToFloat64(p.deps.Metrics.revoked.WithLabelValues(reporter))
			}
			if counted == 0 {
				t.Errorf("no refusal is counted by the %s", reporter)
			}
			b.revoked.revoke("")
			if _, _, err := b.dial(t); err != nil {
				t.Errorf("when it is revoked no more: %v", err)
			}
		})
	}
}
