package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// httpConn is a connection that carries requests.
type httpConn struct {
	*downstream
	stats *httpStats
	bound atomic.Pointer[binding]

	// Of HTTP/1: generation is the socket's when the connection began; drain is closed when the exchange under way, or none, is
	// to be the last.
	generation uint64
	drain      chan struct{}
	draining   sync.Once
}

// leave makes the exchange under way the last one of an HTTP/1 connection: its response says so. A connection that waits for a
// request is closed; a request that is on its way then fails, so this is done within an exchange where there is time.
func (c *httpConn) leave() { c.draining.Do(func() { close(c.drain) }) }

// binding is the chain that the connection has under a version of its listener. It is immutable.
type binding struct {
	listener *l7.Listener
	chain    *l7.Chain
	admitted bool
}

// serveHTTP answers the requests of a connection until it ends.
func (d *downstream) serveHTTP(ctx context.Context, chain *l7.Chain, conn netx.Stream) {
	s := d.srv
	m := chain.HTTP
	c := &httpConn{downstream: d, stats: s.stats.of(m.StatPrefix)}
	c.bound.Store(&binding{listener: s.current.Load().cfg.Listeners[d.listener], chain: chain, admitted: true})
	c.stats.cxTotal.Add(1)
	c.stats.cxActive.Add(1)
	defer c.stats.cxActive.Add(-1)
	if tcp, ok := conn.(*net.TCPConn); ok {
		conn = quick(tcp)
	}
	protocol := h2conn.HTTP1
	switch {
	case m.Codec == l7.CodecHTTP2 || d.sniffed == l7.ProtocolHTTP2:
		protocol = h2conn.HTTP2
	case m.Codec == l7.CodecAuto && d.sniffed == l7.ProtocolUnknown:
		seen, sniffed, err := h2conn.Sniff(conn, m.IdleTimeout)
		if err != nil {
			return
		}
		protocol = seen
		if stream, ok := sniffed.(netx.Stream); ok {
			conn = stream
		} else {
			conn = halfless{sniffed}
		}
	}
	handler := func(ctx context.Context, stream httpmsg.ServerStream) { c.handle(ctx, stream) }
	var err error
	if protocol == h2conn.HTTP2 {
		err = h2conn.Serve(ctx, conn, handler, h2conn.ServerConfig{
			Drain: d.socket.Soft(), MaxConcurrentStreams: m.HTTP2.MaxStreams, IdleTimeout: m.IdleTimeout,
			Options: h2conn.Options{
				MaxHeaderBytes: m.MaxHeaderBytes, MaxHeaders: m.MaxHeaders, StreamWindow: m.HTTP2.StreamWindow, ConnWindow: m.HTTP2.ConnWindow,
				KeepaliveInterval: m.HTTP2.KeepaliveInterval, KeepaliveTimeout: m.HTTP2.KeepaliveTimeout, Log: s.deps.Log,
			},
		})
	} else {
		c.generation, c.drain = d.socket.Generation(), make(chan struct{})
		forget := d.socket.OnEnd(c.leave)
		defer forget()
		err = h1.Serve(ctx, conn, handler, h1.ServerConfig{
			Drain: c.drain, MaxHeaderBytes: m.MaxHeaderBytes, MaxHeaders: m.MaxHeaders, IdleTimeout: m.IdleTimeout,
			HeaderTimeout: m.RequestHeadersTimeout, RefuseHTTP10: !m.AcceptHTTP10, Log: s.deps.Log, Refused: c.refused,
		})
	}
	if err != nil {
		s.deps.Log.Debug("connection ended", "peer", d.conn.Source.String(), "error", err)
	}
}

// handle answers one request.
func (c *httpConn) handle(ctx context.Context, stream httpmsg.ServerStream) {
	if c.drain != nil && c.socket.Generation() != c.generation {
		c.leave()
	}
	x := c.srv.exchanges.Get().(*exchange)
	x.run(ctx, c, stream)
	x.reset()
	c.srv.exchanges.Put(x)
}

// chain is the one for a request that comes now: that of the listener's newest version, so that policies hold for connections
// that are older than they are.
func (c *httpConn) chain(cfg *l7.Config) *binding {
	b := c.bound.Load()
	l := cfg.Listeners[c.listener]
	if l == b.listener || l == nil { // a listener that is gone drains with what it had
		return b
	}
	next := &binding{listener: l, chain: b.chain, admitted: true}
	if chain, ok := cfg.Chain(c.listener, &c.conn, c.sniffed); ok && chain.HTTP != nil {
		next.chain = chain
		_, next.admitted = chain.Admit(&c.conn)
	}
	c.bound.Store(next)
	return next
}

// refused accounts for what came in the place of a request and was none.
func (c *httpConn) refused(status int, reason string) {
	b := c.bound.Load()
	now := c.srv.deps.Clock()
	r := &Record{
		Kind: KindRequest, Start: now, Listener: c.listener, Chain: b.chain, Conn: &c.conn, Tunnel: c.tunnel, Source: c.source,
		ConnectionID: c.conn.ID, Protocol: httpmsg.HTTP11, Status: status, GRPCStatus: -1,
		Flags: l7.FlagDownstreamProtocolError, Details: "http1.codec_error", Termination: reason,
	}
	if status == 408 {
		r.Flags, r.Details = 0, "request_header_timeout"
	}
	c.stats.rqTotal.Add(1)
	if class := status / 100; class > 0 && class < len(c.stats.class) {
		c.stats.class[class].Add(1)
	}
	c.srv.deps.Observer.Ended(r)
}
