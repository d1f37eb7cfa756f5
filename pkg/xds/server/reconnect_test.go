package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// A server that limits the age of connections is reconnected to at once, with a token that is read anew; one that is gone is
// awaited with all resources kept, and what changed meanwhile is made up for.
func TestReconnect(t *testing.T) {
	var mu sync.Mutex // guards tokens
	var tokens []string
	token := func(n int) string {
		mu.Lock()
		defer mu.Unlock()
		if n >= len(tokens) {
			return ""
		}
		return tokens[n]
	}
	s := server.New(server.Config{Log: slog.New(slog.DiscardHandler), Authenticate: func(ctx context.Context) (server.Peer, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, strings.Join(append(md.Get("authorization"), md.Get("clusterid")...), " "))
		return server.Peer{Namespace: "istio-system"}, nil
	}})
	s.Publish(addressType, []server.Resource{resource("a", "1"), resource("b", "1")}, nil)
	listen := func(addr string, transport server.Transport) (string, func()) {
		g := grpc.NewServer(server.Options(transport)...)
		discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
		var l net.Listener
		eventually(t, "the port is free", func() (ok bool) {
			var err error
			l, err = net.Listen("tcp", addr)
			return err == nil
		})
		done := make(chan struct{})
		go func() { defer close(done); _ = g.Serve(l) }()
		return l.Addr().String(), func() { g.Stop(); <-done }
	}
	addr, stop := listen("127.94.0.3:0", server.Transport{MaxConnectionAge: 100 * time.Millisecond, MaxConnectionAgeGrace: 50 * time.Millisecond})

	reg := prometheus.NewRegistry()
	st := &state{has: map[string]string{}}
	var reads atomic.Int64
	c := client.New(client.Config{
		Target: addr, Node: node("istio-system"), ClusterID: "c1", Metrics: client.NewMetrics(reg),
		Token: func() (string, error) { return fmt.Sprint("token", reads.Add(1)), nil },
		Types: []client.Watch{{TypeURL: addressType, Handler: st}},
		Dial: func() ([]grpc.DialOption, error) {
			return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-c.Synced()
	if got := token(0); got != "Bearer token1 c1" {
		t.Errorf("metadata %q", got)
	}
	// Which one it is depends on how often the client has tried.
	eventually(t, "connected again with a new token", func() bool {
		next := token(1)
		return next != token(0) && strings.HasPrefix(next, "Bearer token") && strings.HasSuffix(next, " c1")
	})
	if n := testutil.CollectAndCount(reg, "istio_xds_connection_terminations_total"); n != 1 {
		t.Errorf("%d reasons of termination, want one", n)
	}
	found, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.GetName() == "istio_xds_connection_terminations_total" && f.GetMetric()[0].GetLabel()[0].GetValue() != "Reconnect" {
			t.Errorf("terminated for %v", f.GetMetric())
		}
	}
	stop()
	eventually(t, "the server is gone", func() bool { return len(s.Clients()) == 0 })
	if !st.is("a@1", "b@1")() {
		t.Error("resources did not outlive the connection")
	}
	s.Publish(addressType, []server.Resource{resource("a", "2")}, []string{"b"})
	_, stop = listen(addr, server.Transport{})
	defer stop()
	eventually(t, "what changed meanwhile", st.is("a@2"))
}
