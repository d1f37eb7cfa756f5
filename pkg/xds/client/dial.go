package client

import (
	"context"
	"fmt"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // wrapped by sizing
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
)

// MaxMessage is the size of the largest response that is accepted.
const MaxMessage = 200 << 20

// connectTimeout bounds the dial and the TLS handshake.
const connectTimeout = 10 * time.Second

// stream is a transport on a connection of its own: what ends the stream ends the connection, so that the next dial starts
// with fresh credentials, addresses and root certificates.
type stream struct {
	conn   *grpc.ClientConn
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

// dial opens a connection and a stream on it.
func (c *Client) dial(ctx context.Context) (transport, error) {
	md, err := c.metadata()
	if err != nil {
		return nil, err
	}
	var opts []grpc.DialOption
	if c.cfg.Dial != nil {
		if opts, err = c.cfg.Dial(); err != nil {
			return nil, fmt.Errorf("prepare connection: %w", err)
		}
	}
	opts = append(opts,
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage), grpc.ForceCodecV2(sizing{encoding.GetCodecV2("proto")})),
		grpc.WithDisableServiceConfig(),
	)
	conn, err := grpc.NewClient(c.cfg.Target, opts...)
	if err != nil {
		return nil, err
	}
	s, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(metadata.NewOutgoingContext(ctx, md))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &stream{conn, s}, nil
}

// metadata returns what each connection says of the caller.
func (c *Client) metadata() (metadata.MD, error) {
	md := metadata.MD{}
	if c.cfg.Token != nil {
		token, err := c.cfg.Token()
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		md.Set("authorization", "Bearer "+token)
	}
	if c.cfg.ClusterID != "" {
		md.Set("clusterid", c.cfg.ClusterID)
	}
	return md, nil
}

func (s *stream) Send(r *discovery.DeltaDiscoveryRequest) error { return s.stream.Send(r) }

func (s *stream) Recv() (*discovery.DeltaDiscoveryResponse, int, error) {
	var m sized
	if err := s.stream.RecvMsg(&m); err != nil {
		return nil, 0, err
	}
	return &m.DeltaDiscoveryResponse, m.size, nil
}

func (s *stream) Close() { s.conn.Close() }

// sized is a response that knows how long it was on the wire.
type sized struct {
	discovery.DeltaDiscoveryResponse
	size int
}

// sizing is the protobuf codec, which also notes sizes.
type sizing struct{ encoding.CodecV2 }

func (c sizing) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*sized)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	m.size = data.Len()
	return c.CodecV2.Unmarshal(data, &m.DeltaDiscoveryResponse)
}
