package server

import (
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Transport is how a gRPC server treats its connections. The zero value is usable.
type Transport struct {
	// MaxConnectionAge after which a client is told to connect anew, so that load spreads over replicas; 0 is never.
	MaxConnectionAge time.Duration
	// MaxConnectionAgeGrace is how long the old connection then stays; 0 is 10 s.
	MaxConnectionAgeGrace time.Duration
}

// receiveWindow is how much a client may send before it is read. That it is fixed keeps gRPC from measuring each connection, which
// it does by a ping beside every request: as many more packets as there are acknowledgements. Requests are small but for the first
// one of a client that reconnects, which a window of this size does not hold up.
const receiveWindow = 1 << 20

// Options returns the options a grpc.Server needs to serve a Server: the codec that shares encoded bytes, no limit on
// received messages (a reconnecting client names all it has: far more than gRPC's default of 4 MiB), and pings.
// Other services may be registered on the same grpc.Server.
func Options(t Transport) []grpc.ServerOption {
	params := keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}
	if t.MaxConnectionAge > 0 {
		params.MaxConnectionAge = t.MaxConnectionAge
		params.MaxConnectionAgeGrace = t.MaxConnectionAgeGrace
		if params.MaxConnectionAgeGrace == 0 {
			params.MaxConnectionAgeGrace = 10 * time.Second
		}
	}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(100_000),
		grpc.InitialWindowSize(receiveWindow),
		grpc.InitialConnWindowSize(receiveWindow),
		grpc.KeepaliveParams(params),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}
