package proxy

import (
	"context"
	"net"
	"sync/atomic"
	"time"

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
	good  atomic.Pointer[snapshot] // by which the last request was decided

	drain      *netx.Life // ends when the connection takes no more requests than those under way
	requests   atomic.Uint32
	forget     func()      // of the socket's wishes
	timer      *time.Timer // for the longest that it may last; nil is none
	gently     bool        // HTTP/1: see leave
	generation uint64      // the socket's when the connection began
}

// leave ends the connection: HTTP/2 after what is under way, of which the client is told. HTTP/1 at once when it waits for a
// request, and a request that is on its way then fails: so as long as there is time, last is the way.
func (c *httpConn) leave() { c.drain.End(nil) }

// turn is called when a request comes. HTTP/2 is told to end after as many as it may carry.
func (c *httpConn) turn() {
	if limit := c.bound.Load().chain.HTTP.MaxRequestsPerConnection; limit > 0 && c.requests.Add(1) >= limit && !c.gently {
		c.leave()
	}
}

// last is whether the response that is about to be sent is the last one of an HTTP/1 connection.
func (c *httpConn) last() bool {
	if !c.gently {
		return false
	}
	b := c.bound.Load()
	limit := b.chain.HTTP.MaxRequestsPerConnection
	return b.stale != nil || limit > 0 && c.requests.Load() >= limit || c.socket.Generation() != c.generation
}

// binding is the chain that the connection has under a version of its listener. It is immutable.
type binding struct {
	listener *l7.Listener
	chain    *l7.Chain
	admitted bool
	// stale is the configuration of which the chain is, when the newest one has none for the connection; else nil.
	stale *snapshot
}

// serveHTTP answers the requests of a connection until it ends. Many connections wait below it for most of their life, so it and what it
// calls for them keep little on the stack; what opens and ends a connection is not on it.
func (d *downstream) serveHTTP(ctx context.Context, chain *l7.Chain, conn netx.Stream) {
	c, serve := d.openHTTP(chain, conn) //nolint:contextcheck // its drain is its own
	if c != nil {
		c.closed(serve(ctx))
	}
}

// openHTTP finds out what the client speaks, and returns what serves it; nil if nothing came.
func (d *downstream) openHTTP(chain *l7.Chain, conn netx.Stream) (*httpConn, func(context.Context) error) {
	s := d.srv
	m := chain.HTTP
	c := &httpConn{
		downstream: d, stats: s.stats.of(m.StatPrefix), drain: netx.NewLife(context.Background()), generation: d.socket.Generation(),
	}
	c.bound.Store(&binding{listener: d.chosen.cfg.Listeners[d.listener], chain: chain, admitted: true})
	c.good.Store(d.chosen)
	c.stats.cxTotal.Add(1)
	c.stats.cxActive.Add(1)
	if tcp, ok := conn.(*net.TCPConn); ok {
		conn = quick(tcp)
	}
	protocol := h2conn.HTTP1
	switch {
	case m.Codec == l7.CodecHTTP2 || d.sniffed == l7.ProtocolHTTP2:
		protocol = h2conn.HTTP2
	case m.Codec == l7.CodecAuto && d.sniffed == l7.ProtocolUnknown:
		limit := m.IdleTimeout
		if m.RequestHeadersTimeout > 0 && (limit == 0 || m.RequestHeadersTimeout < limit) {
			limit = m.RequestHeadersTimeout // what is sent slowly is no request either
		}
		seen, sniffed, err := h2conn.Sniff(conn, limit)
		if err != nil {
			c.stats.cxActive.Add(-1)
			return nil, nil
		}
		protocol = seen
		if stream, ok := sniffed.(netx.Stream); ok {
			conn = stream
		} else {
			conn = halfless{sniffed}
		}
	}
	if m.MaxConnectionDuration > 0 {
		c.timer = time.AfterFunc(m.MaxConnectionDuration, c.leave)
	}
	if protocol == h2conn.HTTP2 {
		return c, c.prepareH2(conn)
	}
	return c, c.prepareH1(conn)
}

func (c *httpConn) prepareH2(conn net.Conn) func(context.Context) error {
	s, b := c.srv, c.bound.Load()
	m := b.chain.HTTP
	c.forget = c.socket.OnSoft(c.leave)
	return h2conn.Prepare(conn, c.handle, h2conn.ServerConfig{
		Drain: c.drain, MaxConcurrentStreams: m.HTTP2.MaxStreams, IdleTimeout: m.IdleTimeout, Go: s.handlers.Go, AnyPath: b.listener.AnyPath,
		HeaderTimeout: m.RequestHeadersTimeout, Refused: func(status int, reason string) { c.refused(httpmsg.HTTP2, status, reason) },
		Options: h2conn.Options{
			MaxHeaderBytes: m.MaxHeaderBytes, MaxHeaders: m.MaxHeaders, StreamWindow: m.HTTP2.StreamWindow, ConnWindow: m.HTTP2.ConnWindow,
			KeepaliveInterval: m.HTTP2.KeepaliveInterval, KeepaliveTimeout: m.HTTP2.KeepaliveTimeout,
			WriteTimeout: m.StreamIdleTimeout, Log: s.deps.Log,
		},
	})
}

func (c *httpConn) prepareH1(conn net.Conn) func(context.Context) error {
	b := c.bound.Load()
	m := b.chain.HTTP
	c.gently = true
	c.forget = c.socket.OnEnd(c.leave)
	return h1.Prepare(conn, c.handle, h1.ServerConfig{
		Drain: c.drain, MaxHeaderBytes: m.MaxHeaderBytes, MaxHeaders: m.MaxHeaders, IdleTimeout: m.IdleTimeout,
		HeaderTimeout: m.RequestHeadersTimeout, RefuseHTTP10: !m.AcceptHTTP10, Unfold: b.listener.Unfold, ServerName: m.ServerName, Log: c.srv.deps.Log,
		Refused: func(status int, reason string) { c.refused(httpmsg.HTTP11, status, reason) },
	})
}

// closed accounts for a connection that has ended.
func (c *httpConn) closed(err error) {
	c.forget()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.drain.End(nil)
	c.stats.cxActive.Add(-1)
	if err != nil {
		c.srv.deps.Log.Debug("connection ended", "peer", c.conn.Source.String(), "error", err)
	}
}

// handle answers one request.
func (c *httpConn) handle(ctx context.Context, stream httpmsg.ServerStream) {
	c.turn()
	x := c.srv.exchanges.Get().(*exchange)
	x.run(ctx, c, stream)
	x.reset()
	c.srv.exchanges.Put(x)
}

// chain is the one for a request that comes now: that of the listener's newest version, so that policies hold for connections
// that are older than they are. A connection whose chain or routes are gone drains with what it had; the configuration to
// decide by comes along.
func (c *httpConn) chain(now *snapshot) (*binding, *snapshot) {
	b := c.bound.Load()
	if b.stale != nil {
		return b, b.stale
	}
	l := now.cfg.Listeners[c.listener]
	next := b
	if l != b.listener {
		chain, ok := now.cfg.Chain(c.listener, &c.conn, c.sniffed)
		if !ok || chain.HTTP == nil {
			return c.drainWith(b)
		}
		_, admitted := chain.Admit(&c.conn)
		next = &binding{listener: l, chain: chain, admitted: admitted}
	}
	if m := next.chain.HTTP; m.Inline == nil && now.cfg.Routes[m.RouteConfig] == nil && c.good.Load() != nil {
		return c.drainWith(b)
	}
	if next != b {
		c.bound.Store(next)
	}
	if c.good.Load() != now {
		c.good.Store(now)
	}
	return next, now
}

// drainWith keeps the chain and the configuration of the request before, and lets the connection end.
func (c *httpConn) drainWith(b *binding) (*binding, *snapshot) {
	last := c.good.Load()
	if last == nil {
		last = c.srv.current.Load()
	}
	stale := &binding{listener: b.listener, chain: b.chain, admitted: b.admitted, stale: last}
	c.bound.Store(stale)
	if !c.gently {
		c.leave()
	}
	return stale, last
}

// refused accounts for what came in the place of a request and was none.
func (c *httpConn) refused(version httpmsg.Version, status int, reason string) {
	b := c.bound.Load()
	now := c.srv.deps.Clock()
	r := &Record{
		Kind: KindRequest, Start: now, Listener: c.listener, Chain: b.chain, Conn: &c.conn, Tunnel: c.tunnel, Source: c.source,
		ConnectionID: c.conn.ID, Protocol: version, Status: status, GRPCStatus: -1, ContentLength: -1,
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
