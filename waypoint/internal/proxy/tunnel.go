package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// serveTunnels terminates an HBONE connection: each CONNECT in it is a connection to the internal listener behind the chain.
func (d *downstream) serveTunnels(ctx context.Context, chain *l7.Chain, conn *net.TCPConn) {
	s := d.srv
	var own *certs.Workload
	secured, err := d.handshake(ctx, quick(conn), tunnelTLS(chain.TLS, func() (_ *certs.Workload, err error) {
		if s.deps.Certs == nil {
			return nil, errors.New("the proxy has no certificate")
		}
		own, err = s.deps.Certs.Get(ctx)
		return own, err
	}))
	if err != nil {
		d.insecure(chain, KindTunnel, err)
		return
	}
	peer, _ := certs.PeerID(secured.ConnectionState())
	d.conn.Identity, d.conn.LocalIdentity = peer.String(), own.ID.String()
	h := &tunnelHandler{outer: d, chain: chain}
	if err := hbone.ServeConn(ctx, secured, h, hbone.ServerConfig{Drain: d.socket.Drain, Log: s.deps.Log}); err != nil {
		s.deps.Log.Debug("tunnel connection ended", "peer", d.conn.Source.String(), "error", err)
	}
}

// tunnelTLS is the mesh's mutual TLS; peers of other trust domains are let in where the listener names them.
func tunnelTLS(want *l7.ServerTLS, get func() (*certs.Workload, error)) *tls.Config {
	config := certs.HBONEServerConfig(get)
	if want == nil || len(want.PeerSANs) == 0 {
		return config
	}
	base := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		var own *certs.Workload
		strict, err := base(hello)
		if err == nil {
			own, err = get()
		}
		if err != nil {
			return nil, err
		}
		strict.VerifyConnection = func(state tls.ConnectionState) error {
			id, ok := certs.PeerID(state)
			if !ok || !upstream.MatchesSAN(want.PeerSANs, l7.SANURI, id.String()) {
				return errors.New("the client's SPIFFE ID is none that the listener takes")
			}
			// The rest is as for peers of our own trust domain.
			alias := *own
			alias.ID.TrustDomain = id.TrustDomain
			checks, err := certs.HBONEServerConfig(func() (*certs.Workload, error) { return &alias, nil }).GetConfigForClient(hello)
			if err != nil {
				return err
			}
			return checks.VerifyConnection(state)
		}
		return strict, nil
	}
	return config
}

// tunnelHandler serves the CONNECTs of one HBONE connection. It is immutable.
type tunnelHandler struct {
	outer *downstream
	chain *l7.Chain
}

// ServeCONNECT implements hbone.Handler. The source of the connection is the peer of the tunnel, whose identity was proven:
// what the peer says in headers informs telemetry only.
func (h *tunnelHandler) ServeCONNECT(ctx context.Context, request *hbone.Request, w hbone.ResponseWriter) {
	tunnels := &h.outer.srv.stats.tunnels
	tunnels.Add(1)
	defer tunnels.Add(-1)
	if d, chain, conn := h.open(ctx, request, w); chain != nil {
		d.serveHTTP(ctx, chain, conn)
	}
}

// open finds the chain of a CONNECT and accepts it; without a chain everything is done already.
func (h *tunnelHandler) open(ctx context.Context, request *hbone.Request, w hbone.ResponseWriter) (*downstream, *l7.Chain, netx.Stream) {
	s := h.outer.srv
	d := &downstream{
		srv: s, socket: h.outer.socket, tunnel: h.outer.conn.Source, source: hbone.ParseBaggage(request.Header.Get("baggage")),
		conn: h.outer.conn, start: s.deps.Clock(),
	}
	d.conn.ID = s.ids.Add(1)
	d.conn.Authority = request.Authority
	to, err := hbone.ParseAuthority(request.Authority)
	if err != nil {
		h.refuse(d, w, 400, "authority of CONNECT: "+err.Error())
		return nil, nil, nil
	}
	d.conn.Destination = to.AddrPort()
	var accepted *hbone.Stream
	var conn netx.Stream
	if !s.knows(ctx, d, h.chain.Terminate.Cluster) {
		reason := "no service or workload of this waypoint is at " + request.Authority
		if d.listener == "" {
			reason = "no internal listener is behind " + h.chain.Terminate.Cluster
		}
		h.refuse(d, w, 503, reason)
		return nil, nil, nil
	}
	if l := d.chosen.cfg.Listeners[d.listener]; l != nil && l.NeedsSNI(&d.conn) {
		if accepted, err = w.Accept(nil); err != nil {
			return nil, nil, nil
		}
		if conn, err = d.inspectTLS(ctx, accepted); err != nil {
			return nil, nil, nil
		}
	}
	if d.chosen.cfg.NeedsSniff(d.listener, &d.conn) {
		if conn == nil {
			if accepted, err = w.Accept(nil); err != nil {
				return nil, nil, nil
			}
			conn = accepted
		}
		if conn, err = d.sniff(conn); err != nil {
			return nil, nil, nil
		}
	}
	chain, ok := d.chosen.cfg.Chain(d.listener, &d.conn, d.sniffed)
	if !ok {
		h.refuse(d, w, 503, "no chain takes the protocol that is spoken at "+request.Authority)
		return nil, nil, nil
	}
	if details, ok := chain.Admit(&d.conn); !ok {
		d.denied(chain, details)
		w.Refuse(401, nil) // of no effect when it was accepted: the stream ends when the handler returns
		return nil, nil, nil
	}
	if chain.HTTP == nil {
		h.serveTCP(ctx, d, chain, w, conn)
		return nil, nil, nil
	}
	if conn == nil {
		if accepted, err = w.Accept(nil); err != nil {
			return nil, nil, nil
		}
		conn = accepted
	}
	return d, chain, conn
}

// noService is the chain of a waypoint that serves nothing: a listener without one would be refused.
const noService = "blackhole"

// knows waits until the configuration has a chain for the connection in the listener behind a cluster, and keeps it as the one that is
// chosen by.
func (s *Server) knows(ctx context.Context, d *downstream, behind string) bool {
	var timeout <-chan time.Time
	for {
		changed := s.changes()
		d.chosen = s.current.Load()
		if d.listener = d.chosen.cfg.InternalListener(behind); d.listener != "" {
			if d.chosen.cfg.NeedsSniff(d.listener, &d.conn) {
				return true
			}
			if chain, ok := d.chosen.cfg.Chain(d.listener, &d.conn, d.sniffed); ok && chain.Name != noService {
				return true
			}
		}
		if timeout == nil {
			timer := time.NewTimer(s.deps.Limits.Patience)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// serveTCP accepts only once the host is connected, unless the first bytes were needed to choose the chain.
func (h *tunnelHandler) serveTCP(ctx context.Context, d *downstream, chain *l7.Chain, w hbone.ResponseWriter, conn netx.Stream) {
	up, failed := d.connectTCP(ctx, chain)
	if failed != nil {
		d.srv.stats.tunnelsRefused.Add(1)
		d.srv.deps.Observer.Ended(failed)
		if conn != nil {
			netx.Abort(conn)
		}
		w.Refuse(503, nil)
		return
	}
	if conn == nil {
		accepted, err := w.Accept(nil)
		if err != nil {
			up.end(err)
			return
		}
		conn = accepted
	}
	up.relay(ctx, conn)
}

// refuse turns a CONNECT away, with the reason in the log.
func (h *tunnelHandler) refuse(d *downstream, w hbone.ResponseWriter, status int, reason string) {
	s := d.srv
	s.stats.tunnelsRefused.Add(1)
	w.Refuse(status, nil)
	r := d.record(KindTunnel, h.chain)
	r.Method, r.Authority, r.Status = "CONNECT", d.conn.Authority, status
	r.Flags, r.Details, r.Termination = l7.FlagNoRouteFound, "filter_chain_not_found", reason
	if status == 400 {
		r.Flags = l7.FlagDownstreamProtocolError
	}
	r.Duration = time.Since(d.start)
	s.deps.Observer.Ended(r)
	s.deps.Log.Debug("tunnel refused", "peer", d.conn.Source.String(), "authority", d.conn.Authority, "status", status, "reason", reason)
}
