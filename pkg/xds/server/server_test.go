package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

const (
	addressType = "type.googleapis.com/istio.workload.Address"
	syncz       = "istio.io/debug/syncz"
	deadline    = time.Minute
)

func resource(name, version string, groups ...string) server.Resource {
	return server.Resource{Name: name, Version: version, Any: &anypb.Any{TypeUrl: addressType, Value: []byte(name + "@" + version)}, Groups: groups}
}

// serve starts a server on a real socket and returns its address.
func serve(t *testing.T, cfg server.Config) (*server.Server, string) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	s := server.New(cfg)
	g := grpc.NewServer(server.Options(server.Transport{})...)
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return s, l.Addr().String()
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) discovery.AggregatedDiscoveryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return discovery.NewAggregatedDiscoveryServiceClient(conn)
}

func node(namespace string) *corev3.Node {
	md, _ := structpb.NewStruct(map[string]any{"NAMESPACE": namespace})
	return &corev3.Node{Id: "ztunnel~10.0.0.1~zt." + namespace + "~" + namespace + ".svc.cluster.local", Metadata: md}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, deadline, what, ok, nil)
}

// state is a handler that keeps what it has.
type state struct {
	mu  sync.Mutex
	has map[string]string
	bad string
}

func (s *state) Apply(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range updated {
		if u.Name == s.bad {
			rejected = append(rejected, client.Rejected{Name: u.Name, Reason: "bad"})
			continue
		}
		s.has[u.Name] = string(u.Any.GetValue())
	}
	for _, name := range removed {
		delete(s.has, name)
	}
	return rejected
}

func (s *state) is(want ...string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		var got []string
		for _, v := range s.has {
			got = append(got, v)
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	}
}

func subscribe(t *testing.T, addr string, h client.Handler, onDemand bool) *client.Client {
	t.Helper()
	c := client.New(client.Config{
		Target: addr, Node: node("istio-system"), Types: []client.Watch{{TypeURL: addressType, Handler: h, OnDemand: onDemand}},
		Dial: func() ([]grpc.DialOption, error) {
			return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func TestWildcardClients(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, addr := serve(t, server.Config{Metrics: server.NewMetrics(reg)})
	s.Publish(addressType, []server.Resource{resource("a", "1"), resource("b", "1")}, nil)
	var states []*state
	for range 5 {
		st := &state{has: map[string]string{}, bad: "bad"}
		states = append(states, st)
		<-subscribe(t, addr, st, false).Synced()
	}
	s.Publish(addressType, []server.Resource{resource("c", "1"), resource("a", "2")}, []string{"b", "unknown"})
	for _, st := range states {
		eventually(t, "all have a@2 c@1", st.is("a@2", "c@1"))
	}
	s.Publish(addressType, []server.Resource{resource("bad", "1"), resource("d", "1")}, nil)
	for _, st := range states {
		eventually(t, "valid resources apply beside a rejected one", st.is("a@2", "c@1", "d@1"))
	}
	eventually(t, "rejections are shown", func() bool {
		cs := s.Clients()
		return len(cs) == 5 && !slices.ContainsFunc(cs, func(c server.ClientStatus) bool { return c.Types[0].LastError != "bad: bad" })
	})
	want := fmt.Sprintf("# HELP pilot_total_xds_rejects Total number of XDS responses from pilot rejected by proxy.\n# TYPE pilot_total_xds_rejects counter\npilot_total_xds_rejects{type=%q} 5\n", addressType)
	eventually(t, "rejections are counted", func() bool {
		return testutil.GatherAndCompare(reg, strings.NewReader(want), "pilot_total_xds_rejects") == nil
	})
}

func TestOnDemandClient(t *testing.T) {
	s, addr := serve(t, server.Config{})
	vip := resource("shop/web.shop.svc", "1")
	vip.Aliases = []string{"/10.96.0.1"}
	s.Publish(addressType, []server.Resource{vip, resource("pod1", "1", "shop/web.shop.svc"), resource("other", "1")}, nil)
	st := &state{has: map[string]string{}}
	c := subscribe(t, addr, st, true)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for _, name := range []string{"/10.96.0.1", "/10.96.0.9"} {
		if err := c.Demand(ctx, addressType, name); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the service and its workload", st.is("pod1@1", "shop/web.shop.svc@1"))
	s.Publish(addressType, []server.Resource{resource("pod2", "1", "shop/web.shop.svc"), resource("other", "2")}, nil)
	eventually(t, "a workload that joins", st.is("pod1@1", "pod2@1", "shop/web.shop.svc@1"))
	s.Publish(addressType, nil, []string{"pod1"})
	eventually(t, "a workload that goes", st.is("pod2@1", "shop/web.shop.svc@1"))
}

func TestAdmission(t *testing.T) {
	_, addr := serve(t, server.Config{Authenticate: func(ctx context.Context) (server.Peer, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		token := strings.TrimPrefix(strings.Join(md.Get("authorization"), ""), "Bearer ")
		if token == "" {
			return server.Peer{}, fmt.Errorf("no token")
		}
		return server.Peer{Namespace: token}, nil
	}})
	api := dial(t, addr)
	for _, c := range []struct {
		name, token string
		node        *corev3.Node
		want        codes.Code
	}{
		{"no credentials", "", node("istio-system"), codes.Unauthenticated},
		{"no node", "istio-system", nil, codes.InvalidArgument},
		{"malformed id", "istio-system", &corev3.Node{Id: "ztunnel"}, codes.InvalidArgument},
		{"another namespace", "shop", node("istio-system"), codes.PermissionDenied},
		{"namespace by id", "shop", &corev3.Node{Id: "a~b~c~istio-system.svc.cluster.local"}, codes.PermissionDenied},
		{"fine", "istio-system", node("istio-system"), codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			if c.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
			}
			stream, err := api.DeltaAggregatedResources(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{Node: c.node, TypeUrl: addressType})
			if _, err = stream.Recv(); status.Code(err) != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A client that does not read holds up neither Publish nor the others, and has one message with the newest state to read
// after those that were in flight.
func TestSlowClient(t *testing.T) {
	s, addr := serve(t, server.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow, err := dial(t, addr, grpc.WithStaticStreamWindowSize(65535), grpc.WithStaticConnWindowSize(65535)).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Send(&discovery.DeltaDiscoveryRequest{Node: node("x"), TypeUrl: addressType}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "slow client is there", func() bool { return len(s.Clients()) == 1 && len(s.Clients()[0].Types) == 1 })
	quick := &state{has: map[string]string{}}
	<-subscribe(t, addr, quick, false).Synced()
	const rounds = 500
	big := strings.Repeat("x", 10_000)
	for i := range rounds {
		r := resource("a", fmt.Sprint(i))
		r.Any.Value = append(r.Any.Value, big...)
		s.Publish(addressType, []server.Resource{r}, nil)
	}
	last := fmt.Sprintf("a@%d%s", rounds-1, big)
	eventually(t, "the quick client has the last state", quick.is(last))
	messages := 0
	for {
		r, err := slow.Recv()
		if err != nil {
			t.Fatal(err)
		}
		messages++
		if len(r.GetResources()) == 1 && string(r.GetResources()[0].GetResource().GetValue()) == last {
			break
		}
	}
	if messages > rounds/2 {
		t.Errorf("the slow client got %d messages for %d changes: history, not state", messages, rounds)
	}
}

func TestStateOfTheWorld(t *testing.T) {
	s, addr := serve(t, server.Config{SotW: map[string]server.SotWHandler{
		syncz: func(context.Context, *discovery.DiscoveryRequest, server.Peer) ([]*anypb.Any, error) {
			return []*anypb.Any{{TypeUrl: "envoy.service.status.v3.ClientConfig"}}, nil
		},
	}})
	s.Publish(addressType, []server.Resource{resource("a", "1")}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	stream, err := dial(t, addr).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *discovery.DiscoveryRequest) {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(n int) *discovery.DiscoveryResponse {
		t.Helper()
		r, err := stream.Recv()
		if err != nil || len(r.GetResources()) != n {
			t.Fatalf("got %v, %v; want %d resources", r, err, n)
		}
		return r
	}
	ask(&discovery.DiscoveryRequest{Node: &corev3.Node{}, TypeUrl: syncz})
	expect(1)
	// A node for real: the rest of the stream is a proxy.
	stream, err = dial(t, addr).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask(&discovery.DiscoveryRequest{Node: node("x"), TypeUrl: addressType})
	r := expect(1)
	ask(&discovery.DiscoveryRequest{TypeUrl: addressType, ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo()})
	eventually(t, "acked", func() bool {
		cs := s.Clients()
		return len(cs) > 0 && len(cs[len(cs)-1].Types) > 0 && cs[len(cs)-1].Types[0].Acked == r.GetNonce()
	})
	s.Publish(addressType, []server.Resource{resource("b", "1")}, nil)
	r = expect(2)
	ask(&discovery.DiscoveryRequest{TypeUrl: addressType, ResponseNonce: r.GetNonce(), ErrorDetail: &statuspb.Status{Message: "no"}})
	ask(&discovery.DiscoveryRequest{TypeUrl: addressType, ResourceNames: []string{"b"}})
	expect(1)
}

// A reconnecting client that names more than gRPC's default limit of 4 MiB is served.
func TestLargeRequest(t *testing.T) {
	s, addr := serve(t, server.Config{})
	s.Publish(addressType, []server.Resource{resource("a", "1")}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	stream, err := dial(t, addr, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30))).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for i := range 60_000 {
		versions[fmt.Sprintf("cluster1//Pod/namespace-%d/%s", i, strings.Repeat("p", 80))] = "0123456789abcdef"
	}
	versions["a"] = "1"
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node("x"), TypeUrl: addressType, InitialResourceVersions: versions}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil || len(r.GetResources()) != 0 || len(r.GetRemovedResources()) != 60_000 {
		t.Errorf("got %d resources, %d removals, %v", len(r.GetResources()), len(r.GetRemovedResources()), err)
	}
}

// A stream ends with its client, also when that happens between two requests.
func TestStreamsEnd(t *testing.T) {
	s, addr := serve(t, server.Config{})
	api := dial(t, addr)
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := api.DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node("x"), TypeUrl: addressType, ResponseNonce: "0"}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	eventually(t, "all streams have ended", func() bool { return len(s.Clients()) == 0 })
}
