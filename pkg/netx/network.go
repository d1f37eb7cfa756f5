package netx

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Network creates sockets somewhere: in a pod's namespace or in the process's own.
type Network interface {
	// Listen opens a TCP listener on addr ("host:port"); network is tcp, tcp4 or tcp6.
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	// ListenPacket opens a UDP socket on addr; network is udp, udp4 or udp6.
	ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error)
	// Dial connects to addr. A valid local makes the connection come from that address, even one
	// that is not configured on any interface (the caller needs CAP_NET_ADMIN).
	Dial(ctx context.Context, network string, addr netip.AddrPort, local netip.Addr) (net.Conn, error)
}

// Keepalive is the TCP keepalive of every connection. Zero fields take the defaults.
type Keepalive struct {
	Idle     time.Duration // silence before the first probe; default 180 s
	Interval time.Duration // between probes; default 180 s
	Count    int           // unanswered probes that end the connection; default 9
}

// Options are the socket options common to all sockets of a [NS].
type Options struct {
	// Mark is SO_MARK of every socket, listeners and UDP included; 0 sets none.
	Mark uint32
	// ListenMark, unless it is 0, is that of listeners, of what they accept, and of UDP sockets instead.
	ListenMark uint32
	// Keepalive of accepted and dialled TCP connections.
	Keepalive Keepalive
	// RequireTransparent makes a listener fail when IP_TRANSPARENT can't be set; otherwise it is best effort.
	RequireTransparent bool
}
