package app_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
	"github.com/isthmus-mesh/isthmus/ztunnel/app"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/config"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// controlPlane serves discovery and certificates on loopback, in plaintext.
type controlPlane struct {
	authv1.UnimplementedIstioCertificateServiceServer
	t      *testing.T
	addr   string
	xds    *server.Server
	ca     *testkit.CA
	refuse atomic.Bool
	issued sync.Map // identities
	hold   atomic.Pointer[hold]
}

// hold keeps requests for certificates waiting.
type hold struct{ waiting, over chan struct{} }

// keep makes the requests that come from now on wait until release; each that waits is an element of waiting.
func (c *controlPlane) keep() (waiting <-chan struct{}, release func()) {
	h := &hold{waiting: make(chan struct{}, 100), over: make(chan struct{})}
	c.hold.Store(h)
	return h.waiting, sync.OnceFunc(func() {
		c.hold.Store(nil)
		close(h.over)
	})
}

func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	c := &controlPlane{t: t, ca: ca, xds: server.New(server.Config{Log: slog.New(slog.DiscardHandler)})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	s := grpc.NewServer(server.Options(server.Transport{})...)
	discovery.RegisterAggregatedDiscoveryServiceServer(s, c.xds)
	authv1.RegisterIstioCertificateServiceServer(s, c)
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	return c
}

// CreateCertificate issues to node proxies what they ask for.
func (c *controlPlane) CreateCertificate(ctx context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := strings.Join(md.Get("authorization"), ","); got != "Bearer a-token" {
		return nil, status.Errorf(codes.Unauthenticated, "authorization %q", got)
	}
	if h := c.hold.Load(); h != nil {
		h.waiting <- struct{}{}
		select {
		case <-h.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c.refuse.Load() {
		return nil, status.Error(codes.Unauthenticated, "request impersonation authentication failure")
	}
	id, err := spiffe.Parse(r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	c.issued.Store(id.String(), true)
	chain, err := c.ca.Chain([]byte(r.GetCsr()), id, time.Duration(r.GetValidityDuration())*time.Second)
	return &authv1.IstioCertificateResponse{CertChain: chain}, err
}

func (c *controlPlane) publish(typeURL, name string, m proto.Message) {
	c.t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.xds.Publish(typeURL, []server.Resource{{Name: name, Version: fmt.Sprint(time.Now().UnixNano()), Any: packed}}, nil)
}

func (c *controlPlane) publishPod(name, ip, node string) {
	c.t.Helper()
	c.publishWorkload(name, ip, node, workload.TunnelProtocol_HBONE)
}

// publishPlain makes a pod one that takes no tunnels.
func (c *controlPlane) publishPlain(name, ip, node string) {
	c.t.Helper()
	c.publishWorkload(name, ip, node, workload.TunnelProtocol_NONE)
}

func (c *controlPlane) publishWorkload(name, ip, node string, tunnel workload.TunnelProtocol) {
	c.t.Helper()
	uid := "Kubernetes//Pod/shop/" + name
	c.publish(l4.AddressType, uid, &workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
		Uid: uid, Name: name, Namespace: "shop", ServiceAccount: name, Node: node, WorkloadName: name, CanonicalName: name,
		TunnelProtocol: tunnel, Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()},
	}}})
}

// agent is one node's CNI agent: it tells every proxy that connects of one pod.
type agent struct{ socket string }

func newAgent(t *testing.T, pod, netns string) *agent {
	t.Helper()
	a := &agent{socket: filepath.Join(t.TempDir(), "ztunnel.sock")}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: a.socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go introduce(conn, pod, netns)
		}
	}()
	return a
}

// introduce tells a proxy of the pod, and waits for its answers, whatever they are: what a test waits for needs the pod.
func introduce(conn *net.UnixConn, pod, netns string) {
	buf := make([]byte, 1024)
	if _, err := conn.Read(buf); err != nil { // the greeting
		return
	}
	file, err := os.Open(netns)
	if err != nil {
		return
	}
	defer file.Close()
	requests := []*zds.WorkloadRequest{
		{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{Uid: pod, WorkloadInfo: &zds.WorkloadInfo{Name: pod, Namespace: "shop", ServiceAccount: pod}}}},
		{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}},
	}
	rights := [][]byte{syscall.UnixRights(int(file.Fd())), nil}
	for i, r := range requests {
		packet, _ := proto.Marshal(r)
		if _, _, err := conn.WriteMsgUnix(packet, rights[i], nil); err != nil {
			return
		}
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// process is a node proxy running in the test.
type process struct {
	addresses app.Addresses
	stop      context.CancelFunc
	ended     chan error
}

func (b *bed) startNode(name, socket string, env ...string) *process {
	b.t.Helper()
	cfg, err := config.Load(append([]string{
		"NODE_NAME=" + name, "POD_NAME=ztunnel-" + name, "POD_NAMESPACE=istio-system", "XDS_ADDRESS=http://" + b.plane.addr,
		"CA_ADDRESS=http://" + b.plane.addr, "AUTH_TOKEN=" + b.token, "INPOD_UDS=" + socket, "CONNECTION_TERMINATION_DEADLINE=2s",
		"ISTIO_META_DNS_CAPTURE=true",
	}, env...))
	if err != nil {
		b.t.Fatal(err)
	}
	cfg.AdminAddr, cfg.MetricsAddr, cfg.ReadinessAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.SleepAfter = 10 * time.Millisecond // so that all that is tested is of connections that may sleep
	cfg.CertificatePatience = cmp.Or(b.patience, cfg.CertificatePatience)
	cfg.Log, cfg.Levels = telemetry.NewLogger(b.log, telemetry.Options{Level: slog.LevelDebug})
	started := make(chan app.Addresses, 1)
	cfg.Started = func(a app.Addresses) { started <- a }
	ctx, stop := context.WithCancel(context.Background())
	p := &process{stop: stop, ended: make(chan error, 1)}
	go func() { p.ended <- app.Run(ctx, cfg) }()
	select {
	case p.addresses = <-started:
	case err := <-p.ended:
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		stop()
		if err := <-p.ended; err != nil {
			b.t.Errorf("node proxy: %v", err)
		}
		p.ended <- nil
	})
	return p
}

func (p *process) get(t *testing.T, addr net.Addr, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + addr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (p *process) waitReady(t *testing.T) {
	t.Helper()
	var body string
	wait.Until(t, time.Minute, "the node proxy is ready", func() (ok bool) {
		var code int
		code, body = p.get(t, p.addresses.Readiness, "/healthz/ready")
		return code == 200
	}, func() string { return body })
}

// bed is two nodes with a pod each.
type bed struct {
	t              *testing.T
	plane          *controlPlane
	log            *podtest.Log
	token          string
	client, server *netx.NS
	agents         [2]*agent
	nodes          [2]*process
	patience       time.Duration // CertificatePatience; 0 is the default
}

func newBed(t *testing.T, env ...string) *bed {
	t.Helper()
	b := &bed{t: t, plane: newControlPlane(t), log: &podtest.Log{}, token: filepath.Join(t.TempDir(), "token")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of both nodes:\n%s", b.log)
		}
	})
	if err := os.WriteFile(b.token, []byte("a-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := podtest.NewPair(t)
	b.client, b.server = podtest.Open(t, pair.Client, 0), podtest.Open(t, pair.Server, 0)
	b.plane.publishPod("client", podtest.ClientIP, "node-a")
	b.plane.publishPod("server", podtest.ServerIP, "node-b")
	b.agents = [2]*agent{newAgent(t, "client", pair.Client), newAgent(t, "server", pair.Server)}
	for i, name := range []string{"node-a", "node-b"} {
		b.nodes[i] = b.startNode(name, b.agents[i].socket, env...)
	}
	for _, n := range b.nodes {
		n.waitReady(t)
	}
	podtest.Greet(t, b.server, "0.0.0.0:8080")
	return b
}

// dial opens a connection of the client.
func (b *bed) dial(port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	return b.client.Dial(ctx, "tcp", netip.MustParseAddrPort(podtest.ServerIP+":"+port), netip.Addr{})
}

// call opens a connection of the client, reads the greeting, and returns the connection.
func (b *bed) call() (net.Conn, error) {
	conn, err := b.dial("8080")
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, len("hello "+podtest.ClientIP+"\n"))); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func echo(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write([]byte("still there?")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, len("still there?")))
	return err
}

func TestNodesCarryTrafficAndExplainIt(t *testing.T) {
	b := newBed(t)
	conn, err := b.call()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, text := b.nodes[1].get(t, b.nodes[1].addresses.Admin, "/config_dump")
	var dump struct {
		Workloads     []map[string]any `json:"workloads"`
		WorkloadState map[string]struct {
			State       string `json:"state"`
			Connections struct {
				Inbound []map[string]string `json:"inbound"`
			} `json:"connections"`
		} `json:"workloadState"`
		Certificates []struct {
			Identity, State string
			CertChain       []map[string]string
		} `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(text), &dump); err != nil {
		t.Fatal(err)
	}
	inbound := dump.WorkloadState["server"].Connections.Inbound
	if len(dump.Workloads) != 2 || dump.Workloads[0]["protocol"] != "HBONE" || len(inbound) != 1 || inbound[0]["protocol"] != "HBONE" ||
		len(dump.Certificates) != 1 || dump.Certificates[0].Identity != "spiffe://cluster.local/ns/shop/sa/server" ||
		dump.Certificates[0].State != "Available" || dump.Certificates[0].CertChain[0]["serialNumber"] == "" {
		t.Errorf("dump %s", text)
	}
	if strings.Contains(text, "a-token") || strings.Contains(text, "PRIVATE KEY") {
		t.Error("the dump holds a secret")
	}
	_, text = b.nodes[1].get(t, b.nodes[1].addresses.Metrics, "/metrics")
	for _, want := range []string{
		`istio_tcp_connections_opened_total{connection_security_policy="mutual_tls"`, `source_principal="spiffe://cluster.local/ns/shop/sa/client"`,
		"workload_manager_active_proxy_count 1", `istio_build{component="ztunnel"`, "istio_xds_message_total",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if code, text := post(t, b.nodes[1].addresses.Admin, "/logging?level=access=warn"); code != 200 || !strings.Contains(text, "access=warn") {
		t.Errorf("logging: %d %s", code, text)
	}
	if code, _ := post(t, b.nodes[1].addresses.Admin, "/logging?level=loud"); code != 400 {
		t.Errorf("an unknown level: %d", code)
	}
}

func post(t *testing.T, addr net.Addr, path string) (int, string) {
	t.Helper()
	response, err := http.Post("http://"+addr.String()+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func TestAReplacementTakesOverWithoutFailures(t *testing.T) {
	const deadline = "CONNECTION_TERMINATION_DEADLINE=60s" // nothing that is open here lasts as long
	const drains = "ENABLE_HANDOVER=false"
	b := newBed(t, deadline, drains)
	long, err := b.call()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { long.Close() }()
	// One connection at a time, as fast as they come, while both proxies are replaced.
	ctx, stop := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	var last error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			conn, err := b.call()
			if calls.Add(1); err != nil {
				failed.Add(1)
				last = err
				continue
			}
			conn.Close()
		}
	}()
	defer func() { stop(); <-done }()
	goOn := func() {
		t.Helper()
		before := calls.Load()
		wait.Until(t, time.Minute, "connections go on", func() bool { return calls.Load() > before+5 }, nil)
	}
	for i, name := range []string{"node-a", "node-b"} {
		goOn()
		next := b.startNode(name, b.agents[i].socket, deadline, drains)
		next.waitReady(t)
		goOn()
		if err := echo(long); err != nil {
			t.Fatalf("the open connection, beside a second proxy on %s: %v", name, err)
		}
		old := b.nodes[i]
		b.nodes[i] = next
		old.stop()
		select {
		case err := <-old.ended:
			old.ended <- nil
			t.Fatalf("the old proxy on %s left with a connection open: %v", name, err)
		case <-time.After(time.Second):
		}
		goOn()
		if err := echo(long); err != nil {
			t.Fatalf("the open connection, while its proxy on %s waits for it: %v", name, err)
		}
		long.Close()
		if err := <-old.ended; err != nil {
			t.Error(err)
		}
		old.ended <- nil
		if long, err = b.call(); err != nil {
			t.Fatal(err)
		}
	}
	goOn()
	stop()
	<-done
	if failed.Load() > 0 {
		t.Errorf("%d of %d connections failed: %v", failed.Load(), calls.Load(), last)
	}
}

func TestPodsWithoutACertificateDoNotConnect(t *testing.T) {
	b := newBed(t)
	b.plane.refuse.Store(true)
	replaced := b.nodes[0]
	next := b.startNode("node-a", b.agents[0].socket)
	next.waitReady(t)
	replaced.stop()
	if err := <-replaced.ended; err != nil {
		t.Error(err)
	}
	replaced.ended <- nil
	if conn, err := b.call(); err == nil {
		conn.Close()
		t.Error("connected without a certificate")
	}
	b.log.Wait(t, "request impersonation authentication failure")
	b.plane.refuse.Store(false)
	wait.Until(t, time.Minute, "it recovers", func() bool {
		conn, err := b.call()
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, nil)
}

// TestWithoutCertificatesPodsStayWhereTheyAre: the proxy that is there serves them, until the one that takes its place can.
func TestWithoutCertificatesPodsStayWhereTheyAre(t *testing.T) {
	b := newBed(t)
	b.patience = time.Hour
	waiting, release := b.plane.keep()
	defer release()
	for i, name := range []string{"node-a", "node-b"} {
		next := b.startNode(name, b.agents[i].socket)
		<-waiting // it knows its pod, and has no certificate
		for range 16 {
			conn, err := b.call()
			if err != nil {
				t.Fatalf("while the next proxy of %s waits for a certificate: %v", name, err)
			}
			conn.Close()
		}
		if code, body := next.get(t, next.addresses.Readiness, "/healthz/ready"); code == http.StatusOK {
			t.Errorf("ready without a certificate: %s", body)
		}
		b.nodes[i] = next
	}
	release()
	for _, n := range b.nodes {
		n.waitReady(t)
	}
}

// TestCertificatesAreNotWaitedForLong: a pod needs its proxy for what goes without a certificate, too.
func TestCertificatesAreNotWaitedForLong(t *testing.T) {
	b := newBed(t)
	b.patience = time.Millisecond
	_, release := b.plane.keep()
	defer release()
	b.startNode("node-a", b.agents[0].socket).waitReady(t)
	b.log.Wait(t, "starts without the pod's certificate")
}
