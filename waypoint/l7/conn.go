package l7

import "github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"

// Conn is what is known of a downstream connection.
type Conn = exchange.Conn

// Protocol is what was seen in the first bytes of a connection.
type Protocol = exchange.Protocol

// The protocols that a listener filter can tell apart.
const (
	ProtocolUnknown = exchange.ProtocolUnknown
	ProtocolHTTP1   = exchange.ProtocolHTTP1
	ProtocolHTTP2   = exchange.ProtocolHTTP2
)
