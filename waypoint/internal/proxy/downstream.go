package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/listener"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// downstream is a client's connection, as its chain sees it: of a socket, or inside a tunnel.
type downstream struct {
	// immutable once it is served
	srv      *Server
	socket   *listener.Socket
	listener string // whose chains serve it
	conn     l7.Conn
	sniffed  l7.Protocol
	tunnel   netip.AddrPort // TCP peer of the HBONE connection; not valid without one
	source   hbone.Workload
	start    time.Time
	chosen   *snapshot // by which the chain was chosen
}

// serveSocket carries a connection that a socket accepted.
func (s *Server) serveSocket(ctx context.Context, socket *listener.Socket, tcp *net.TCPConn) {
	s.stats.connections.Add(1)
	defer s.stats.connections.Add(-1)
	d := s.newDownstream(socket, tcp)
	switch chain, conn := d.choose(ctx, tcp); {
	case chain == nil:
	case chain.Terminate != nil:
		d.serveTunnels(ctx, chain, tcp)
	case chain.HTTP != nil:
		d.serveHTTP(ctx, chain, conn)
	default:
		d.serveTCP(ctx, chain, conn)
	}
}

func (s *Server) newDownstream(socket *listener.Socket, tcp *net.TCPConn) *downstream {
	return &downstream{srv: s, socket: socket, listener: socket.Name, start: s.deps.Clock(), conn: l7.Conn{
		Source: addrPort(tcp.RemoteAddr()), Destination: addrPort(tcp.LocalAddr()), ID: s.ids.Add(1),
	}}
}

// choose finds the chain of a connection, and what is to be served of it; nil when it is not let in, or has ended.
func (d *downstream) choose(ctx context.Context, tcp *net.TCPConn) (*l7.Chain, netx.Stream) {
	cfg := d.srv.current.Load().cfg
	var conn netx.Stream = tcp
	l := cfg.Listeners[d.listener]
	if l != nil && l.ProxyProtocol && !d.introduced(tcp) {
		return nil, nil
	}
	if l != nil && l.NeedsSNI(&d.conn) {
		var err error
		if conn, err = d.inspectTLS(ctx, tcp); err != nil {
			return nil, nil
		}
	}
	if cfg.NeedsSniff(d.listener, &d.conn) {
		var err error
		if conn, err = d.sniff(conn); err != nil {
			return nil, nil
		}
	}
	d.chosen = d.srv.current.Load()
	chain, ok := d.chosen.cfg.Chain(d.listener, &d.conn, d.sniffed)
	switch {
	case !ok:
		d.noChain()
		return nil, nil
	case chain.Terminate != nil:
		return chain, nil
	case chain.TLS != nil:
		secured, err := d.terminate(ctx, chain, conn)
		if err != nil {
			d.insecure(chain, KindConnection, err)
			return nil, nil
		}
		conn = secured
	}
	if details, ok := chain.Admit(&d.conn); !ok {
		d.denied(chain, details)
		return nil, nil
	}
	return chain, conn
}

// serveTCP carries a connection of a TCP chain.
func (d *downstream) serveTCP(ctx context.Context, chain *l7.Chain, conn netx.Stream) {
	up, failed := d.connectTCP(ctx, chain)
	if failed != nil {
		d.srv.deps.Observer.Ended(failed)
		netx.Abort(conn)
		return
	}
	up.relay(ctx, conn)
}

// sniff looks at the first bytes.
func (d *downstream) sniff(conn netx.Stream) (netx.Stream, error) {
	protocol, sniffed, err := h2conn.Sniff(conn, d.srv.deps.Limits.SniffTimeout)
	if err != nil {
		return nil, fmt.Errorf("first bytes from %s: %w", d.conn.Source, err)
	}
	switch protocol {
	case h2conn.HTTP1:
		d.sniffed = l7.ProtocolHTTP1
	case h2conn.HTTP2:
		d.sniffed = l7.ProtocolHTTP2
	case h2conn.HTTP10:
		d.sniffed = l7.ProtocolHTTP10
	case h2conn.Unknown:
	}
	if stream, ok := sniffed.(netx.Stream); ok {
		return stream, nil
	}
	return halfless{sniffed}, nil
}

// halfless is a connection that can't be half-closed.
type halfless struct{ net.Conn }

// CloseWrite ends both directions.
func (h halfless) CloseWrite() error { return h.Close() }

// quick is conn with cheaper system calls, for what is read and written in small pieces.
func quick(conn *net.TCPConn) netx.Stream {
	if direct, err := netx.Direct(conn); err == nil {
		if stream, ok := direct.(netx.Stream); ok {
			return stream
		}
	}
	return conn
}

// record begins the account of the connection itself.
func (d *downstream) record(kind Kind, chain *l7.Chain) *Record {
	return &Record{
		Kind: kind, Start: d.start, Listener: d.listener, Chain: chain, Conn: &d.conn, Tunnel: d.tunnel, Source: d.source,
		ConnectionID: d.conn.ID, GRPCStatus: -1, ContentLength: -1,
	}
}

// noChain accounts for a connection that no chain takes.
func (d *downstream) noChain() {
	d.srv.stats.noChain.Add(1)
	r := d.record(KindConnection, nil)
	r.Flags, r.Details = l7.FlagNoRouteFound, "filter_chain_not_found"
	r.Duration = d.srv.deps.Clock().Sub(d.start)
	d.srv.deps.Observer.Ended(r)
}

// denied accounts for a connection that policy does not let in.
func (d *downstream) denied(chain *l7.Chain, details string) {
	r := d.record(KindConnection, chain)
	r.Details, r.Termination = details, details
	r.Duration = d.srv.deps.Clock().Sub(d.start)
	d.srv.deps.Observer.Ended(r)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// terminate ends the TLS of a client, and notes what it has said and proven.
func (d *downstream) terminate(ctx context.Context, chain *l7.Chain, conn netx.Stream) (netx.Stream, error) {
	config, err := d.srv.serverTLS(ctx, chain.TLS, d.chosen.cfg.Secrets)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		conn = quick(tcp)
	}
	secured, err := d.handshake(ctx, conn, config)
	if err != nil {
		return nil, err
	}
	state := secured.ConnectionState()
	d.conn.TLS, d.conn.ALPN = true, state.NegotiatedProtocol
	if state.ServerName != "" {
		d.conn.SNI = state.ServerName
	}
	if slices.Contains(chain.TLS.Certificates, l7.OwnCertificate) {
		if own, err := d.srv.deps.Certs.Get(ctx); err == nil {
			d.conn.LocalIdentity = own.ID.String()
		}
	}
	switch state.NegotiatedProtocol {
	case "h2":
		d.sniffed = l7.ProtocolHTTP2
	case "http/1.1":
		d.sniffed = l7.ProtocolHTTP1
	}
	if len(state.PeerCertificates) > 0 && chain.TLS.Validates {
		d.conn.Peer = l7.NewPeer(state.PeerCertificates[0], config.Certificates[0].Leaf)
		if len(d.conn.Peer.URIs) > 0 {
			d.conn.Identity = d.conn.Peer.URIs[0]
		}
	}
	return secured, nil
}

// insecure accounts for a handshake that failed.
func (d *downstream) insecure(chain *l7.Chain, kind Kind, err error) {
	s := d.srv
	s.stats.handshakeErrors.Add(1)
	if trust.Refused(err) {
		s.stats.revoked.Add(1)
		s.deps.Log.Warn("client refused: its certificate is revoked, or no list says that it is not", "client", d.conn.Source.String(), "listener", d.listener, "error", err)
	}
	r := d.record(kind, chain)
	r.Flags, r.Details, r.Termination = l7.FlagDownstreamProtocolError, "tls_handshake", err.Error()
	r.Duration = s.deps.Clock().Sub(d.start)
	s.deps.Observer.Ended(r)
}

// handshake ends TLS on a connection of a peer; the time and the number of peers in it are bounded.
func (d *downstream) handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.srv.deps.Limits.HandshakeTimeout)
	defer cancel()
	from := d.conn.Source.Addr()
	if !d.srv.shaking.take(from, cap(d.srv.handshakes)/sourceShare) {
		return nil, fmt.Errorf("too many TLS handshakes of %s at once", from)
	}
	defer d.srv.shaking.give(from)
	select {
	case d.srv.handshakes <- struct{}{}:
		defer func() { <-d.srv.handshakes }()
	case <-ctx.Done():
		return nil, fmt.Errorf("too many TLS handshakes at once: %w", ctx.Err())
	}
	secured := tls.Server(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

// sourceShare is which part of all unfinished handshakes one source address may have.
const sourceShare = 8

// sources counts by address.
type sources struct {
	mu sync.Mutex // guards by
	by map[netip.Addr]int
}

func (s *sources) take(a netip.Addr, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[a] >= max(limit, 1) {
		return false
	}
	if s.by == nil {
		s.by = map[netip.Addr]int{}
	}
	s.by[a]++
	return true
}

func (s *sources) give(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[a]--; s.by[a] <= 0 {
		delete(s.by, a)
	}
}
