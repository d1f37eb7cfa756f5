package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// serveTunnels terminates one HBONE connection of a peer; it has ended when it returns.
func (i *Instance) serveTunnels(ctx context.Context, conn *net.TCPConn) (carried bool) {
	peer, local := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	secured, state, err := i.handshake(ctx, conn)
	if err != nil {
		i.refused(err)
		i.logEarly(directionInbound, peer, local, err)
		return false
	}
	defer secured.Close()
	id, ok := certs.PeerID(state)
	if !ok {
		i.logEarly(directionInbound, peer, local, fail(flagTLS, "peer has no SPIFFE identity"))
		return false
	}
	handler := &tunnelHandler{instance: i, peer: peer, local: local, id: id}
	var live hbone.Live
	config := i.serverConfig()
	config.Started = func(l hbone.Live) {
		live = l
		i.servers.add(l)
	}
	defer func() { i.servers.remove(live) }()
	if err := hbone.ServeConn(ctx, secured, handler, config); err != nil {
		i.deps.Log.Debug("tunnel connection ended", "peer", peer, "error", err)
		i.cut(directionInbound, peer, err)
	}
	return false
}

// serverConfig is how connections of peers are served.
func (i *Instance) serverConfig() hbone.ServerConfig {
	return hbone.ServerConfig{Drain: i.drain, Log: i.deps.Log, Started: i.servers.add, Budget: i.account}
}

// handshake bounds both the time and the number of peers in it.
func (i *Instance) handshake(ctx context.Context, conn *net.TCPConn) (net.Conn, tls.ConnectionState, error) {
	var none tls.ConnectionState
	ctx, cancel := context.WithTimeout(ctx, i.deps.Config.HandshakeTimeout)
	defer cancel()
	leave, err := i.beginHandshake(ctx, addrPort(conn.RemoteAddr()))
	if err != nil {
		return nil, none, err
	}
	defer leave()
	_, local, err := i.local.Workload(ctx)
	if err != nil {
		return nil, none, err
	}
	i.account.Did(budget.Work{Handshakes: 1})
	var own *certs.Workload
	secured, err := i.deps.Config.Transport.Server(ctx, conn, certs.HBONEServerConfig(func() (used *certs.Workload, err error) {
		own, err = i.deps.Certs.Get(ctx, local.Identity())
		return own, err
	}))
	if err != nil {
		return nil, none, fail(flagTLS, "TLS handshake: %w", err)
	}
	believed, err := i.believed(secured, own, reportDestination)
	return believed, secured.ConnectionState(), err
}

// tunnelHandler serves the tunnels inside one connection. It is immutable.
type tunnelHandler struct {
	instance    *Instance
	peer, local netip.AddrPort
	id          spiffe.ID
}

// ServeCONNECT implements hbone.Handler.
func (h *tunnelHandler) ServeCONNECT(ctx context.Context, request *hbone.Request, w hbone.ResponseWriter) {
	i := h.instance
	if !i.account.Admit() {
		w.Refuse(503, nil)
		i.shed(budget.Connections, directionInbound, h.peer, errShare)
		return
	}
	o := h.open(ctx, request, w)
	if o == nil {
		i.account.Leave()
		return
	}
	o.done = w.Detach()
	i.carry(o)
}

// open opens what a CONNECT asks for; nil, when it is nothing, has been answered and logged.
func (h *tunnelHandler) open(ctx context.Context, request *hbone.Request, w hbone.ResponseWriter) *open {
	in := h.arrive(ctx, request, w)
	if in == nil {
		return nil
	}
	return h.instance.openInbound(ctx, in, func(verdict error) (netx.Stream, error) { return h.answer(w, in.traffic.destination, verdict) })
}

// arrive decides what a CONNECT asks for; nil, when it is nothing, has been answered and logged.
func (h *tunnelHandler) arrive(ctx context.Context, request *hbone.Request, w hbone.ResponseWriter) *arrival {
	i := h.instance
	state, local, err := i.local.Workload(ctx)
	if err != nil {
		w.Refuse(503, nil)
		i.logEarly(directionInbound, h.peer, h.local, err)
		return nil
	}
	state = i.demandAddress(ctx, state, local, h.peer.Addr())
	_, host := hbone.ParseForwarded(request.Header.Get("forwarded"))
	route, err := l4.DecideInbound(state, l4.Inbound{
		Local: local, LocalIP: h.local.Addr(), Authority: request.Authority, ForwardedHost: host,
	})
	t := traffic{
		src: h.peer, dst: h.local, hboneDst: request.Authority, source: sourceOf(state, local, h.peer, h.id),
		destination: local, service: route.Service, secure: true, sourceID: h.id, destinationID: local.Identity(),
	}
	if err != nil {
		status := 503
		var refusal *l4.Refusal
		if errors.As(err, &refusal) {
			status = refusal.Status
		}
		w.Refuse(status, nil)
		i.begin(t).end(err)
		return nil
	}
	return &arrival{
		traffic: t, target: route.Target, originalDst: request.Authority,
		check: authz.Conn{Source: h.peer, Destination: route.Target, Identity: h.id},
	}
}

// answer tells the peer the outcome, and returns its side of the tunnel when that is nil.
func (h *tunnelHandler) answer(w hbone.ResponseWriter, local *l4.Workload, verdict error) (netx.Stream, error) {
	switch {
	case verdict == nil:
		var header hbone.Header
		if h.instance.deps.Config.ResponseBaggage {
			header.Add("baggage", baggageOf(local))
		}
		return w.Accept(header)
	case flagOf(verdict) == flagDeny:
		w.Refuse(401, nil)
	default:
		w.Refuse(503, nil)
	}
	return nil, verdict
}

// servePlaintext carries one redirected connection from outside that uses no tunnel: it has no identity. False says that it has ended
// before.
func (i *Instance) servePlaintext(ctx context.Context, conn *net.TCPConn) (carried bool) {
	o := i.openPlaintext(ctx, conn)
	if o == nil {
		return false
	}
	o.done = i.release
	i.carry(o)
	return true
}

func (i *Instance) openPlaintext(ctx context.Context, conn *net.TCPConn) *open {
	in := i.arrivePlaintext(ctx, conn)
	if in == nil {
		return nil
	}
	return i.openInbound(ctx, in, func(verdict error) (netx.Stream, error) { return conn, verdict })
}

// arrivePlaintext decides where a connection goes; nil, when it goes nowhere, has been logged.
func (i *Instance) arrivePlaintext(ctx context.Context, conn *net.TCPConn) *arrival {
	peer := addrPort(conn.RemoteAddr())
	err := netx.Local(conn)
	var dst netip.AddrPort
	if err == nil {
		dst, err = netx.OriginalDst(conn)
	}
	if err != nil {
		i.logEarly(directionInbound, peer, netip.AddrPort{}, err)
		return nil
	}
	state, local, err := i.local.Workload(ctx)
	if err != nil {
		i.logEarly(directionInbound, peer, dst, err)
		return nil
	}
	state = i.demandAddress(ctx, state, local, peer.Addr())
	route, err := l4.DecidePlaintext(dst)
	if err != nil {
		i.logEarly(directionInbound, peer, dst, err)
		return nil
	}
	return &arrival{
		target: route.Target, originalDst: dst.String(), check: authz.Conn{Source: peer, Destination: dst},
		traffic: traffic{src: peer, dst: dst, source: state.WorkloadByIP(local.Network, peer.Addr()), destination: local},
	}
}

// arrival is an inbound connection whose destination is decided.
type arrival struct {
	traffic     traffic
	target      netip.AddrPort
	originalDst string
	check       authz.Conn
}

// openInbound asks the policies, connects the application and only then accepts; nil is a connection that has ended. Answer is called once
// with the outcome; it returns the peer's side when that is nil.
func (i *Instance) openInbound(ctx context.Context, in *arrival, answer func(error) (netx.Stream, error)) *open {
	// Registered before the policies are asked: whoever changes them later sees this connection.
	o := i.registerInbound(in, netx.NewLife(ctx))
	if err := i.connectInbound(o, in, answer); err != nil {
		o.record.end(err)
		i.leave(o)
		return nil
	}
	return o
}

// connectInbound brings the two ends together.
func (i *Instance) connectInbound(o *open, in *arrival, answer func(error) (netx.Stream, error)) error {
	app, err := i.admit(o.life, in)
	if err != nil {
		_, _ = answer(err) // tells the peer; the connection ends here in any case
		return err
	}
	peer, err := answer(nil)
	if err != nil {
		app.Close()
		return err
	}
	o.record.opened()
	o.connected(peer, app)
	return nil
}

// registerInbound makes a connection known before it is admitted.
func (i *Instance) registerInbound(in *arrival, life *netx.Life) *open {
	o := &open{
		inbound: true, life: life, record: i.begin(in.traffic), check: in.check, gate: netx.NewGate(netx.Way{}, netx.Way{}),
		info: ConnInfo{Src: in.traffic.src, OriginalDst: in.originalDst, ActualDst: in.target, Protocol: protocolName(in.traffic.secure)},
	}
	i.registry.add(o)
	return o
}

// admit asks the policies in force now, and connects the application.
func (i *Instance) admit(ctx context.Context, in *arrival) (netx.Stream, error) {
	state, local, err := i.local.Workload(ctx)
	if err != nil {
		return nil, err
	}
	verdict := state.PoliciesFor(local).Check(in.check)
	for _, dry := range verdict.DryRun {
		i.deps.Metrics.dryRun(dry.Policy, dry.Allowed)
		i.deps.Log.Info("dry-run policy", "policy", dry.Policy, "allowed", dry.Allowed, "reason", dry.Reason, "src.addr", in.check.Source)
	}
	if i.deps.Config.LogDecisions {
		i.deps.Log.Info("policy decision", "allowed", verdict.Allowed, "reason", verdict.Reason, "src.addr", in.check.Source)
	}
	if !verdict.Allowed {
		return nil, fail(flagDeny, "connection closed due to policy rejection: %s", verdict.Reason)
	}
	// The application sees the client's address, except where that is the pod's own.
	var spoof netip.Addr
	if from := in.check.Source.Addr(); from != in.target.Addr() {
		spoof = from
	}
	dialling, cancel := context.WithTimeout(ctx, i.deps.Config.ConnectTimeout)
	defer cancel()
	conn, err := i.pod.Net.Dial(dialling, "tcp", in.target, spoof)
	if err != nil {
		return nil, fail(flagConnect, "connect the application at %s; does it listen on the pod's address?: %w", in.target, err)
	}
	return asStream(conn)
}

// sourceOf is the workload at the peer's address if the peer proved to be it, and nil otherwise: addresses are reused.
func sourceOf(s *l4.State, local *l4.Workload, peer netip.AddrPort, id spiffe.ID) *l4.Workload {
	if w := s.WorkloadByIP(local.Network, peer.Addr()); w != nil && w.Identity() == id {
		return w
	}
	return nil
}
