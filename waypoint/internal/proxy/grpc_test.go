package proxy

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
)

// grpc lets a server of gRPC be the only backend, and returns a client's connection to it.
func (b *bed) grpc(server *grpc.Server) *grpc.ClientConn {
	b.t.Helper()
	pod := b.newBackend("reviews")
	b.serve(pod)
	pod.done.Go(func() { _ = server.Serve(pod) })
	b.t.Cleanup(server.Stop)
	b.protocol = upstreamHTTP2
	b.apply(pod)
	cc := b.dial("productpage")
	conn, err := grpc.NewClient("passthrough:///"+host+":9080", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			s, _, err := cc.Connect(ctx, &hbone.Request{Authority: vip})
			return s, err
		}))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}
