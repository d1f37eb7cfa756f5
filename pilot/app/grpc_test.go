package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"
)

// healthy is a server that says that it is well.
type healthy struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (healthy) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// listenAt listens at all addresses on one port.
func listenAt(t *testing.T, ips ...string) (all []net.Listener, port string) {
	t.Helper()
	port = "0"
	for _, ip := range ips {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ip, port))
		if errors.Is(err, syscall.EADDRINUSE) { // somebody has it at another address
			for _, l := range all {
				l.Close()
			}
			return listenAt(t, ips...)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	return all, port
}

func serveHealth(t *testing.T, l net.Listener) {
	t.Helper()
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, healthy{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

func grpcMesh(port string, ips ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: echo}, ports: [{name: grpc, port: 7070, targetPort: %s}]}
`, port)
	for i, ip := range ips {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: echo-%d, namespace: shop, labels: {app: echo}}
spec: {serviceAccountName: echo, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: %s, conditions: [{type: Ready, status: "True"}]}
`, i, ip)
	}
	return b.String()
}

// A gRPC client without any proxy resolves a service by xds:///, spreads its calls over the pods, and follows them.
func TestProxylessClient(t *testing.T) {
	listeners, port := listenAt(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	for _, l := range listeners {
		serveHealth(t, l)
	}
	dir := t.TempDir()
	write(t, dir, "echo.yaml", grpcMesh(port, "127.0.0.2", "127.0.0.3"))
	addr := start(t, dir)

	resolver, err := xds.NewXDSResolverWithConfigForTesting([]byte(fmt.Sprintf(`{
"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
"node": {"id": "sidecar~127.0.0.9~client-1.shop~shop.svc.cluster.local", "metadata": {"GENERATOR": "grpc", "NAMESPACE": "shop"}}}`, addr.GRPC)))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///echo.shop.svc.cluster.local:7070", grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	calls := func(n int) map[string]int {
		t.Helper()
		hosts := map[string]int{}
		for range n {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			var p peer.Peer
			_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&p), grpc.WaitForReady(true))
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			host, _, _ := net.SplitHostPort(p.Addr.String())
			hosts[host]++
		}
		return hosts
	}
	until(t, "calls go round both pods", func() bool {
		got := calls(10)
		return len(got) == 2 && got["127.0.0.2"] == 5 && got["127.0.0.3"] == 5
	})
	write(t, dir, "echo.yaml", grpcMesh(port, "127.0.0.4"))
	until(t, "calls follow the pods", func() bool {
		got := calls(4)
		return got["127.0.0.4"] == 4
	})
}
