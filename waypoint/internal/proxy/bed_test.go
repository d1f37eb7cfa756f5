package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

const (
	vip     = "10.96.0.1:9080"
	tcpVIP  = "10.96.0.2:9000"
	host    = "reviews.default.svc.cluster.local"
	service = "inbound-vip|9080|http|" + host
)

// identity is the certificate of one workload.
type identity struct{ *certs.Workload }

func (i identity) Get(context.Context) (*certs.Workload, error) { return i.Workload, nil }

// recorder keeps all records, as strings where they alias memory that is reused.
type recorder struct {
	mu     sync.Mutex
	ended  []entry
	opened int
}

// entry is what tests look at of a Record.
type entry struct {
	Kind                                         Kind
	Status                                       int
	Method, Path, Flags, Details, Cluster, Host  string
	Route, Failure, Termination, Source, Upgrade string
	Client, Server, Peer                         netip.AddrPort
	Attempts                                     uint32
	Sent, Received                               uint64
	GRPC, Requests, Responses                    int
	Duration                                     time.Duration
}

func (r *recorder) Opened(*Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened++
}
func (r *recorder) Progress(*Record) {}
func (r *recorder) Ended(rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, entry{
		Kind: rec.Kind, Status: rec.Status, Method: strings.Clone(rec.Method), Path: strings.Clone(rec.Path), Flags: rec.Flags.String(),
		Details: rec.Details, Cluster: rec.ClusterName, Host: rec.UpstreamHost, Route: rec.RouteName, Failure: rec.UpstreamFailure,
		Termination: rec.Termination, Client: rec.Conn.Source, Server: rec.Conn.Destination, Peer: rec.Conn.Direct(), Source: rec.Conn.Identity, Attempts: rec.Attempts, Sent: rec.BytesSent, Received: rec.BytesReceived,
		GRPC: rec.GRPCStatus, Requests: int(rec.RequestMessages), Responses: int(rec.ResponseMessages), Duration: rec.Duration,
	})
}

// last waits for the n-th record and returns it.
func (r *recorder) last(t *testing.T, n int) entry {
	t.Helper()
	var out entry
	until(t, fmt.Sprintf("record %d is there", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.ended) >= n {
			out = r.ended[n-1]
			return true
		}
		return false
	})
	return out
}

// bed is a proxy between HBONE clients and HBONE hosts.
type bed struct {
	t        *testing.T
	ca       *testkit.CA
	server   *Server
	records  *recorder
	hosts    []*backend
	cfg      *l7.Config
	routes   string // JSON of the routes
	clusters map[string][]*backend
	breakers string
	protocol string // JSON of explicit_http_config
	filters  string // JSON of HTTP filters before the router
	network  string // JSON of network filters of the TCP chain
	sockets  string // JSON of transport sockets before the others
	own      string // JSON of the cluster's metadata that is ours
}

var addresses atomic.Uint32

// nextIP is a loopback address that nobody else uses, another process of the same tests included.
func nextIP() string {
	n, pid := int(addresses.Add(1)), os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid%128, (pid/128+n/250)%256, n%250+1)
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return newBedWith(t, Limits{DrainGrace: 50 * time.Millisecond})
}

func newBedWith(t *testing.T, limits Limits) *bed {
	t.Helper()
	return newBedOf(t, func(d *Deps) { d.Limits = limits })
}

func newBedOf(t *testing.T, change func(*Deps)) *bed {
	t.Helper()
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{
		t: t, ca: ca, records: &recorder{}, clusters: map[string][]*backend{}, protocol: upstreamHTTP1,
		routes: `{"match":{"prefix":"/"},"name":"default","route":{"cluster":"` + service + `","timeout":"0s"}}`,
	}
	deps := Deps{Certs: b.identity("waypoint"), Observer: b.records, Log: testLog(t)}
	change(&deps)
	b.server = New(deps)
	t.Cleanup(func() { b.server.Close() })
	return b
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (b *bed) identity(account string) identity {
	b.t.Helper()
	w, err := b.ca.Issue(b.t.Context(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: account})
	if err != nil {
		b.t.Fatal(err)
	}
	return identity{w}
}

// backend is a pod with a node proxy in front, which serves HBONE.
type backend struct {
	ip       string
	account  string
	pretends string // the account that the control plane names, if another
	requests atomic.Int64
	tunnels  atomic.Int64
	listener net.Listener
	drain    chan struct{}
	stop     context.CancelFunc
	done     sync.WaitGroup
	handler  http.Handler
	raw      func(net.Conn) // instead of HTTP
	conns    chan net.Conn
	closed   chan struct{}
	closing  sync.Once
	app      *http.Server
}

// Accept implements net.Listener: what comes are the tunnels' streams.
func (h *backend) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *backend) Close() error {
	h.closing.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *backend) Addr() net.Addr { return h.listener.Addr() }

// backend starts a pod.
func (b *bed) backend(account string, handler http.HandlerFunc) *backend {
	b.t.Helper()
	h := b.newBackend(account)
	h.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		handler(w, r)
	})
	h.app = &http.Server{Handler: h.handler, Protocols: new(http.Protocols)}
	h.app.Protocols.SetHTTP1(true)
	h.app.Protocols.SetUnencryptedHTTP2(true)
	h.done.Go(func() { _ = h.app.Serve(h) })
	b.serve(h)
	return h
}

// rawBackend starts a pod that does not speak HTTP.
func (b *bed) rawBackend(account string, raw func(net.Conn)) *backend {
	b.t.Helper()
	h := b.newBackend(account)
	h.raw = raw
	b.serve(h)
	return h
}

func (b *bed) newBackend(account string) *backend {
	return &backend{ip: nextIP(), account: account, conns: make(chan net.Conn), closed: make(chan struct{}), drain: make(chan struct{})}
}

func (b *bed) serve(h *backend) {
	b.t.Helper()
	l, err := net.Listen("tcp4", h.ip+":15008")
	if err != nil {
		b.t.Fatal(err)
	}
	h.listener = l
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	own := b.identity(h.account)
	config := certs.HBONEServerConfig(func() (*certs.Workload, error) { return own.Workload, nil })
	h.done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.done.Go(func() {
				secured := tls.Server(conn, config)
				if secured.HandshakeContext(ctx) != nil {
					conn.Close()
					return
				}
				_ = hbone.ServeConn(ctx, secured, h, hbone.ServerConfig{Drain: h.drain})
			})
		}
	})
	b.hosts = append(b.hosts, h)
	b.t.Cleanup(h.end)
}

// expected is the account by which the control plane knows the pod.
func (h *backend) expected() string {
	if h.pretends != "" {
		return h.pretends
	}
	return h.account
}

func (h *backend) end() {
	h.Close()
	h.listener.Close()
	h.stop()
	if h.app != nil {
		h.app.Close()
	}
	h.done.Wait()
}

// ServeCONNECT implements hbone.Handler.
func (h *backend) ServeCONNECT(ctx context.Context, r *hbone.Request, w hbone.ResponseWriter) {
	h.tunnels.Add(1)
	if !strings.HasPrefix(r.Authority, h.ip+":") {
		w.Refuse(400, nil)
		return
	}
	stream, err := w.Accept(nil)
	if err != nil {
		return
	}
	if h.raw != nil {
		h.raw(stream)
		return
	}
	conn := &ending{Conn: stream, ended: make(chan struct{})}
	select {
	case h.conns <- conn:
		<-conn.ended
	case <-h.closed:
	case <-ctx.Done():
	}
}

// ending tells when it is closed.
type ending struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

func (e *ending) Close() error {
	e.once.Do(func() { close(e.ended) })
	return e.Conn.Close()
}

// apply compiles the configuration with the given hosts for the service and puts it in force.
func (b *bed) apply(hosts ...*backend) {
	b.t.Helper()
	b.clusters[service] = hosts
	if b.cfg == nil {
		b.cfg = l7.NewConfig().With(l7.Update{Listeners: map[string]*l7.Listener{
			"connect_terminate": compile(b.t, connectTerminate, &listenerv3.Listener{}, l7.CompileListener),
			"connect_originate": compile(b.t, connectOriginate, &listenerv3.Listener{}, l7.CompileListener),
			"0.0.0.0_8080":      compile(b.t, b.gateway(), &listenerv3.Listener{}, l7.CompileListener),
		}, Clusters: map[string]*l7.Cluster{
			"main_internal":     compile(b.t, internalCluster("main_internal"), &clusterv3.Cluster{}, l7.CompileCluster),
			"encap":             compile(b.t, internalCluster("connect_originate"), &clusterv3.Cluster{}, l7.CompileCluster),
			"connect_originate": compile(b.t, originateCluster, &clusterv3.Cluster{}, l7.CompileCluster),
		}})
	}
	u := l7.Update{Clusters: map[string]*l7.Cluster{}, Endpoints: map[string]*l7.Endpoints{}, Routes: map[string]*l7.Routes{
		service: compile(b.t, `{"name":"`+service+`","virtual_hosts":[{"name":"inbound|http|9080","domains":["*"],"routes":[`+b.routes+`]}]}`,
			&routev3.RouteConfiguration{}, l7.CompileRoutes),
	}, Listeners: map[string]*l7.Listener{"main_internal": compile(b.t, b.mainInternal(), &listenerv3.Listener{}, l7.CompileListener)}}
	for name, members := range b.clusters {
		u.Clusters[name] = compile(b.t, b.cluster(name), &clusterv3.Cluster{}, l7.CompileCluster)
		u.Endpoints[name] = compile(b.t, assignment(name, members), &endpointv3.ClusterLoadAssignment{}, l7.CompileEndpoints)
	}
	b.cfg = b.cfg.With(u)
	if err := b.server.SetConfig(b.t.Context(), b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

// endpoints changes the hosts of the service alone.
func (b *bed) endpoints(hosts ...*backend) {
	b.t.Helper()
	b.cfg = b.cfg.With(l7.Update{Endpoints: map[string]*l7.Endpoints{
		service: compile(b.t, assignment(service, hosts), &endpointv3.ClusterLoadAssignment{}, l7.CompileEndpoints),
	}})
	if err := b.server.SetConfig(b.t.Context(), b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

func compile[P proto.Message, T any](t *testing.T, text string, p P, f func(P) (T, error)) T {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), p); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	out, err := f(p)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// dial opens a tunnel to the proxy as a client's node proxy does.
func (b *bed) dial(account string) *hbone.ClientConn {
	b.t.Helper()
	cc, err := b.tryDial(account)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { cc.Close() })
	return cc
}

func (b *bed) tryDial(account string) (*hbone.ClientConn, error) {
	conn, err := net.Dial("tcp", b.server.Address("connect_terminate").String())
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, certs.HBONEClientConfig(b.identity(account).Workload, []string{"spiffe://cluster.local/ns/default/sa/waypoint"}))
	if err := secured.HandshakeContext(b.t.Context()); err != nil {
		conn.Close()
		return nil, err
	}
	return hbone.NewClientConn(secured, hbone.ClientConfig{})
}

// client makes requests to the service through tunnels, as account. With h2 they share one connection.
func (b *bed) client(account string, h2 bool) *http.Client {
	b.t.Helper()
	return b.clientOver(b.dial(account), h2)
}

func (b *bed) clientOver(cc *hbone.ClientConn, h2 bool) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			s, _, err := cc.Connect(ctx, &hbone.Request{Authority: vip})
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		MaxIdleConnsPerHost: 100, DisableCompression: true, Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetUnencryptedHTTP2(h2)
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get makes a request and returns what came.
func get(t *testing.T, c *http.Client, path string) (int, string) {
	t.Helper()
	status, body, err := try(t.Context(), c, http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func try(ctx context.Context, c *http.Client, method, path string, body io.Reader) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+":9080"+path, body)
	if err != nil {
		return 0, "", err
	}
	response, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, ok, nil)
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}
