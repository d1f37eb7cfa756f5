package l7

import (
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// Rand gives 64 random bits: *rand.Rand of math/rand/v2.
type Rand interface{ Uint64() uint64 }

// Request is a request while it is decided and answered. It is reused: Begin makes it ready for the next one.
type Request struct{ exchange.Info }

// Begin makes the request ready for another exchange. Strings of the last one are no longer valid.
func (r *Request) Begin(head *httpmsg.Head, conn *Conn) { r.Info.Begin(head, conn) }

// isGRPC is whether the content type is gRPC's.
func isGRPC(h *httpmsg.Header) bool {
	const t = "application/grpc"
	v := h.Value("content-type")
	return len(v) >= len(t) && v[:len(t)] == t && (len(v) == len(t) || v[len(t)] == '+')
}
