package l7

import (
	"crypto/x509"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// Conn is what is known of a downstream connection.
type Conn = exchange.Conn

// Shadow is what policies of a dry run said.
type Shadow = exchange.Shadow

// Peer is the certificate of a client that has proven it.
type Peer = exchange.Peer

// NewPeer reads a client's certificate, and the one that was presented to it, which may be nil.
func NewPeer(c, presented *x509.Certificate) *Peer { return exchange.NewPeer(c, presented) }

// Protocol is what was seen in the first bytes of a connection.
type Protocol = exchange.Protocol

// The protocols that a listener filter can tell apart.
const (
	ProtocolUnknown = exchange.ProtocolUnknown
	ProtocolHTTP1   = exchange.ProtocolHTTP1
	ProtocolHTTP2   = exchange.ProtocolHTTP2
	ProtocolHTTP10  = exchange.ProtocolHTTP10
)
