package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// connect makes a connection for requests, one at a time or shared by many.
func (h *Host) connect(ctx context.Context, shared bool) (*conn, error) {
	generation := h.renewed.Load()
	alpn := "http/1.1"
	if shared {
		alpn = "h2"
	}
	to, err := h.dial(ctx, alpn)
	if err != nil {
		return nil, err
	}
	nc := to.Conn
	switch plain := nc.(type) {
	case *hbone.Stream:
		nc = politely(plain)
	case *net.TCPConn:
		if direct, err := netx.Direct(plain); err == nil {
			nc = direct
		}
	}
	c := &conn{
		host: h, nc: nc, shared: shared, local: addrPort(nc.LocalAddr()), identity: to.identity, made: time.Now(), generation: generation, tunnel: to.tunnel,
	}
	if c.cc, c.multiplex, err = h.speak(nc, shared); err != nil {
		nc.Close()
		h.failed()
		return nil, unreachable(err)
	}
	h.add(c)
	return c, nil
}

// speak starts HTTP on a connection: the version that was negotiated, if any.
func (h *Host) speak(nc net.Conn, h2 bool) (cc httpmsg.ClientConn, multiplex bool, err error) {
	if secured, ok := nc.(*tls.Conn); ok {
		switch secured.ConnectionState().NegotiatedProtocol {
		case "h2":
			h2 = true
		case "http/1.1":
			h2 = false
		}
	}
	if !h2 {
		return h1.NewClient(nc, h1.ClientConfig{}), false, nil
	}
	options := h.cluster.Config().HTTP2
	cc, err = h2conn.NewClient(nc, h2conn.ClientConfig{MaxConcurrentStreams: options.MaxStreams, Options: h2conn.Options{
		StreamWindow: options.StreamWindow, ConnWindow: options.ConnWindow,
		KeepaliveInterval: options.KeepaliveInterval, KeepaliveTimeout: options.KeepaliveTimeout, Log: h.cluster.manager.deps.Log,
	}})
	return cc, true, err
}

// link is a connection for bytes to a host.
type link struct {
	net.Conn
	tunnel   *hbone.Stream // that carries it; nil for a direct connection
	identity string        // that the peer proved exactly; "" when nothing exact was asked for
}

// dial makes a connection for bytes, within the cluster's connect timeout: direct, or through the tunnel to the host's node.
// alpn is what is to be spoken on it where TLS is originated, "" for bytes. The error is an *[Error].
func (h *Host) dial(ctx context.Context, alpn string) (to link, err error) {
	limit := h.cluster.connectTimeout()
	dialling, cancel := context.WithTimeoutCause(ctx, limit, context.DeadlineExceeded)
	defer cancel()
	e := h.Endpoint()
	if e.Internal != "" {
		to, err = h.tunnel(dialling, e)
	} else {
		to.Conn, err = h.direct(dialling, e)
	}
	if err == nil {
		err = h.secure(dialling, e, &to, alpn)
	}
	if err == nil {
		return to, nil
	}
	h.failed()
	failure := unreachable(err)
	var wrong *IdentityError
	switch {
	case errors.As(err, &wrong):
		h.cluster.stats.identityRefused.Add(1)
		h.cluster.manager.deps.Log.Warn("host refused: another identity answers at its address", "host", h.describe(), "error", err)
	case trust.Refused(err):
		h.cluster.stats.revoked.Add(1)
		h.cluster.manager.deps.Log.Warn("host refused: its certificate is revoked, or no list says that it is not", "host", h.describe(), "error", err)
	case ctx.Err() != nil: // the client gave up, or the request's time is over
		failure = &Error{Reason: LocalReset, Unsent: true, Err: context.Cause(ctx)}
	case failure.Reason == ConnectionTimeout:
		h.cluster.stats.cxConnectTimeout.Add(1)
	}
	return link{}, failure
}

func (h *Host) failed() {
	h.stats.cxConnectFail.Add(1)
	h.cluster.stats.cxConnectFail.Add(1)
}

// direct dials the host's address.
func (h *Host) direct(ctx context.Context, e *l7.Endpoint) (net.Conn, error) {
	to := e.Address
	if h.destination.IsValid() {
		to = h.destination
	}
	if !to.IsValid() {
		return nil, fmt.Errorf("host %s has no address", h.describe())
	}
	conf := h.cluster.Config()
	if !conf.LocalEndpoints {
		if err := refuseLocal(to); err != nil {
			return nil, err
		}
	}
	nc, err := h.cluster.manager.deps.Network.Dial(ctx, "tcp", to, netip.Addr{})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", h.describe(), err)
	}
	if !conf.LocalEndpoints && ownPort(to.Port()) && addrPort(nc.LocalAddr()).Addr() == to.Addr().Unmap() {
		nc.Close() // nothing was sent
		return nil, &LocalError{to}
	}
	if tcp, ok := nc.(*net.TCPConn); ok && conf.KeepaliveIdle > 0 {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{ // the defaults serve, too
			Enable: true, Idle: conf.KeepaliveIdle, Interval: conf.KeepaliveInterval, Count: int(conf.KeepaliveProbes),
		})
	}
	return nc, nil
}

// tunnel opens a stream through HBONE to the host.
func (h *Host) tunnel(ctx context.Context, e *l7.Endpoint) (link, error) {
	m := h.cluster.manager
	t, ok := m.cfg.Load().Tunnel(e, &l7.Conn{Destination: h.destination})
	if !ok {
		return link{}, fmt.Errorf("no tunnel leads to %s: the listener %q does not originate HBONE", h.describe(), e.Internal)
	}
	own, err := m.certificate(ctx)
	if err != nil {
		return link{}, err
	}
	key := hbone.PoolKey{Source: own.ID.String(), Dest: t.Address, ExpectedSANs: t.Identity}
	if t.Identity == "" {
		key.ExpectedSANs = anyPeerOf + t.Cluster.Name
	}
	stream, _, err := m.tunnels.Connect(ctx, &key, &hbone.Request{Authority: t.Authority})
	if err != nil {
		return link{}, fmt.Errorf("tunnel to %s: %w", h.describe(), err)
	}
	return link{Conn: stream, tunnel: stream, identity: t.Identity}, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
