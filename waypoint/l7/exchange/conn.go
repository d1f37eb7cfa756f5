package exchange

import "net/netip"

// Protocol is what was seen in the first bytes of a connection.
type Protocol uint8

// The protocols that a listener filter can tell apart.
const (
	ProtocolUnknown Protocol = iota // not looked at, or neither of the others
	ProtocolHTTP1                   // "http/1.1" of envoy.filters.listener.http_inspector
	ProtocolHTTP2                   // "h2c": the client preface
	ProtocolHTTP10                  // "http/1.0"
)

// Conn is what is known of a downstream connection. For a connection inside an HBONE tunnel the addresses are those of the
// tunnelled connection.
type Conn struct {
	// Source is the client; Destination is where it wanted to go: VIP:port or pod:port on a waypoint (the authority of the CONNECT),
	// the local address on a gateway.
	Source, Destination netip.AddrPort
	// Via is the proxy before us that has told of the client by the PROXY protocol; not valid without one.
	Via netip.AddrPort
	// Identity is the SPIFFE URI of the peer's verified certificate, LocalIdentity ours on that connection. "" is none.
	Identity, LocalIdentity string
	// Authority of the CONNECT that carries the connection; "" without a tunnel. It may name a host.
	Authority string
	SNI, ALPN string
	// TLS is whether the bytes that the chain sees came by TLS which the listener ended itself (not the tunnel's).
	TLS bool
	// Hello is whether the bytes begin with a TLS ClientHello, where that was looked at.
	Hello bool
	// Peer is the client's certificate, verified, where the listener ended TLS itself and the client had one; else nil.
	Peer *Peer
	// ID is a number of the connection, for %CONNECTION_ID%.
	ID uint64
}

// Direct is who is at the other end of the connection itself.
func (c *Conn) Direct() netip.AddrPort {
	if c.Via.IsValid() {
		return c.Via
	}
	return c.Source
}

// State returns what the tunnel's filter state says of the connection.
func (c *Conn) State(key string) (string, bool) {
	if c == nil || c.Authority == "" {
		return "", false
	}
	switch key {
	case PeerPrincipal:
		return c.Identity, c.Identity != ""
	case LocalPrincipal:
		return c.LocalIdentity, c.LocalIdentity != ""
	case OriginalLocal:
		return c.Authority, true
	case OriginalRemote:
		return c.Source.String(), c.Source.IsValid()
	}
	return "", false
}
