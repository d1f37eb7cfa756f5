package envoy

import (
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Names of resources, as Istio has them.
const (
	ConnectTerminate = "connect_terminate"
	MainInternal     = "main_internal"
	ConnectOriginate = "connect_originate"
	Encap            = "encap"
	// BlackHole is a cluster that does not exist: what goes there is refused.
	BlackHole = "BlackHoleCluster"

	directTCP  = "direct-tcp"
	directHTTP = "direct-http"
	sdsCluster = "sds-grpc"
	certSecret = "default"
	rootSecret = "ROOTCA"
	serverName = "istio-envoy"
	hbonePort  = 15008
)

// Outbound is the name of a cluster of any service, seen from a client.
func Outbound(port uint32, subset, host string) string {
	return "outbound|" + number(port) + "|" + subset + "|" + host
}

// InboundVIP is the name of a cluster of a service at its own waypoint. protocol is http or tcp.
func InboundVIP(port uint32, protocol, subset, host string) string {
	if subset != "" {
		protocol += "/" + subset
	}
	return "inbound-vip|" + number(port) + "|" + protocol + "|" + host
}

// WaypointRoute is the name of the routes of a service's port at its waypoint.
func WaypointRoute(port uint32, host string) string { return InboundVIP(port, "http", "", host) }

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// Protocol is how a port is treated.
type Protocol int

// The protocols. Unknown is found out from the first bytes of a connection.
const (
	Unknown Protocol = iota
	HTTP
	HTTP2
	TCP
	TLS
)

// ProtocolOf reads the protocol of a port on the wire.
func ProtocolOf(p workload.AppProtocol) Protocol {
	switch p {
	case workload.AppProtocol_HTTP11:
		return HTTP
	case workload.AppProtocol_HTTP2, workload.AppProtocol_GRPC:
		return HTTP2
	case workload.AppProtocol_TCP:
		return TCP
	case workload.AppProtocol_TLS:
		return TLS
	}
	return Unknown
}

// HTTP reports whether the port has requests, or may have.
func (p Protocol) HTTP() bool { return p == HTTP || p == HTTP2 || p == Unknown }

// TCP reports whether the port has connections without requests, or may have.
func (p Protocol) TCP() bool { return p == TCP || p == TLS || p == Unknown }

// ShortHost is the first label of a host's name.
func ShortHost(host string) string {
	short, _, _ := strings.Cut(host, ".")
	return short
}
