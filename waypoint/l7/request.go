package l7

import "github.com/isthmus-mesh/isthmus/pkg/httpmsg"

// Rand gives 64 random bits: math/rand/v2's sources and *rand.Rand.
type Rand interface{ Uint64() uint64 }

// Request is a request while it is decided and answered. It is reused: Begin makes it ready for the next one.
type Request struct {
	// Head is changed by Decide.
	Head *httpmsg.Head
	Conn *Conn

	// Set by Decide, for logs and metrics; they alias memory of Head or of the Request.
	ID           string // x-request-id
	OriginalPath string // before normalisation and rewrite (x-envoy-original-path when rewritten)
	Path         string // after normalisation, before a rewrite: what logs and metrics show
	Authority    string // before a rewrite
	GRPC         bool   // content-type is gRPC's

	scratch scratch
	state   requestState
}

// Begin makes the request ready for another exchange. Strings of the last one are no longer valid.
func (r *Request) Begin(head *httpmsg.Head, conn *Conn) {
	r.scratch.reset()
	*r = Request{Head: head, Conn: conn, scratch: r.scratch}
}
