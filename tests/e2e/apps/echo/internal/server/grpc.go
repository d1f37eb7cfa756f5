package server

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/grpcecho"
)

// serveGRPC serves Echo, health checks and reflection.
func (s *server) serveGRPC(ctx context.Context, l net.Listener, p port) {
	var options []grpc.ServerOption
	if p.tls {
		options = append(options, grpc.Creds(credentials.NewTLS(s.tls.Clone())))
	}
	g := grpc.NewServer(options...)
	grpcecho.Register(g, &grpcHandler{server: s, port: p.number})
	healthpb.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)
	s.tasks.Go(func() {
		<-ctx.Done()
		timer := time.AfterFunc(drain, g.Stop)
		defer timer.Stop()
		g.GracefulStop()
	})
	s.Log.Debug("no longer serving", "port", p.number, "reason", g.Serve(l))
}

type grpcHandler struct {
	*server
	port int
}

// Echo tells what was seen of the call.
func (h *grpcHandler) Echo(ctx context.Context, message string) (string, error) {
	var out field.Lines
	out.Add(field.StatusCode, strconv.Itoa(http.StatusOK))
	out.Add(field.ServiceVersion, h.Version)
	out.Add(field.ServicePort, strconv.Itoa(h.port))
	md, _ := metadata.FromIncomingContext(ctx)
	authority := ""
	if values := md.Get(":authority"); len(values) > 0 {
		authority = values[0]
	}
	out.Add(field.Host, authority)
	out.Add(field.Cluster, h.Cluster)
	out.Add(field.Method, grpcecho.Method)
	out.Add(field.Proto, "GRPC")
	if p, ok := peer.FromContext(ctx); ok {
		out.Add(field.IP, host(p.Addr))
	}
	delete(md, ":authority")
	out.Headers(field.RequestHeader, http.Header(md))
	out.Add(field.Message, message)
	out.Add(field.Hostname, h.Hostname)
	return out.String(), nil
}
