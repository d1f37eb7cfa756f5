package h2conn_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// TestGRPC: calls, errors in trailers, streams and their cancellation pass through a proxy.
func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, service := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(srv, service)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	defer serving.Wait()
	defer srv.Stop()
	k := dialClient(t, l.Addr().String(), h2conn.ClientConfig{})
	cancelled := make(chan struct{}, 10)
	addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
		up, err := k.Open(ctx, s.Request(), s.Ended())
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close() // after everybody else is done with it
		gone, over := s.Gone(), make(chan struct{})
		var others sync.WaitGroup
		defer others.Wait()
		defer close(over)
		others.Go(func() {
			select {
			case <-gone:
				cancelled <- struct{}{}
				up.Cancel()
			case <-over:
			}
		})
		others.Go(func() { _ = pump(up, s) })
		defer s.Interrupt() // the pump may wait for the client
		h, err := up.Response(ctx, nil)
		if err != nil {
			return
		}
		_ = s.Respond(h, up.Ended())
		if !up.Ended() {
			_ = pump(s, up)
		}
	}, h2conn.ServerConfig{})
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := healthpb.NewHealthClient(cc)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range 100 {
		if r, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatal(r, err)
		}
		if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "unheard of"}); status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	watching, stop := context.WithCancel(ctx)
	w, err := client.Watch(watching, &healthpb.HealthCheckRequest{Service: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVICE_UNKNOWN, healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		if want != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
			service.SetServingStatus("a", want)
		}
		if r, err := w.Recv(); err != nil || r.Status != want {
			t.Fatal(r, err)
		}
	}
	stop()
	<-cancelled
	eventually(t, "the stream upstream ends", func() bool { return k.Active() == 0 })
}
