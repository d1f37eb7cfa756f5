package proxy

import (
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Observer hears of everything that was carried. Its methods are called on the goroutines that carry: they must not block, and
// must keep neither the Record nor what it points to.
type Observer interface {
	// Opened is called when a connection of a TCP chain was connected to its host, before the first byte.
	Opened(r *Record)
	// Progress is called every few seconds for an open connection of a TCP chain or tunnel, with the bytes so far.
	Progress(r *Record)
	// Ended is called once for each request, connection of a TCP chain, connection without a chain, and refused tunnel.
	Ended(r *Record)
}

// Kind is what a Record is about.
type Kind uint8

// The kinds.
const (
	KindRequest    Kind = iota // a request of an HTTP chain
	KindConnection             // a connection of a TCP chain, or one that found no chain
	KindTunnel                 // a CONNECT in an HBONE connection that was refused, or an HBONE connection that could not be made
)

// Record is one request or connection, with what access logs and metrics tell of it.
type Record struct {
	Kind  Kind
	Start time.Time
	// Duration until the last byte to the client.
	Duration time.Duration

	// Downstream.
	Listener string         // the listener whose chain served it: "main_internal", "0.0.0.0_8080"
	Chain    *l7.Chain      // with the access log settings; nil when none was found
	Conn     *l7.Conn       // source, destination, identities
	Tunnel   netip.AddrPort // the TCP peer's address of the HBONE connection; not valid without one
	// Source is what the client's proxy says about the client (baggage); only for telemetry.
	Source hbone.Workload
	// ConnectionID numbers downstream connections.
	ConnectionID uint64

	// Of requests.
	Request *l7.Request // nil for connections
	// Protocol of the client; Method, Path and Authority as they came, before the tables changed them.
	Protocol                httpmsg.Version
	Method, Path, Authority string
	// Scheme of the request.
	Scheme string
	// Header of the request as it was sent upstream, without pseudo-header fields.
	Header *httpmsg.Header
	// Status that the client got; 0 when none was sent.
	Status int
	// Response as it was sent to the client, nil when none was; Trailer may be nil.
	Response, Trailer *httpmsg.Header
	// ContentLength that the response says; -1 when it says none.
	ContentLength int64
	// GRPC is whether it is a gRPC request; GRPCStatus then is its outcome, -1 when there is none.
	GRPC       bool
	GRPCStatus int
	// RequestMessages and ResponseMessages of a gRPC request.
	RequestMessages, ResponseMessages uint64
	// Attempts sent upstream; 0 for answers of ours.
	Attempts uint32
	// Decision of the tables; nil for connections.
	Decision *l7.Decision

	// What happened.
	Flags   l7.Flags
	Details string // %RESPONSE_CODE_DETAILS%
	// Termination is %CONNECTION_TERMINATION_DETAILS%.
	Termination string
	// BytesReceived from and BytesSent to the client: of bodies, or of the connection.
	BytesReceived, BytesSent uint64

	// Upstream.
	Cluster     *l7.Cluster  // nil when none was chosen
	ClusterName string       // %UPSTREAM_CLUSTER%; also of a cluster that does not exist
	Endpoint    *l7.Endpoint // the last that was tried; nil when none was
	// UpstreamHost is %UPSTREAM_HOST%: of an HBONE host "envoy://connect_originate/POD:9080", else its address.
	UpstreamHost  string
	UpstreamLocal netip.AddrPort
	// UpstreamIdentity was proven by the peer; "" without TLS.
	UpstreamIdentity string
	// UpstreamFailure is %UPSTREAM_TRANSPORT_FAILURE_REASON%.
	UpstreamFailure string
	// RouteName is %ROUTE_NAME%.
	RouteName string
	// TimeToFirstByte is from the start until the response's head came from upstream; 0 when none came.
	TimeToFirstByte time.Duration
	// RequestDone is from the start until the whole request was received; 0 when it was not.
	RequestDone time.Duration
}

// Nobody is an Observer that does not care.
type Nobody struct{}

// Opened implements Observer.
func (Nobody) Opened(*Record) {}

// Progress implements Observer.
func (Nobody) Progress(*Record) {}

// Ended implements Observer.
func (Nobody) Ended(*Record) {}
