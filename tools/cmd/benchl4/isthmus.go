package main

import (
	"context"
	"net"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// isthmusClient tunnels each connection through the pool, as the node proxy does, without policies and telemetry.
func isthmusClient(own *certs.Workload, s setup, records hbone.Transport, sleepers *netx.Sleepers, turns *netx.Taker) func(net.Listener) error {
	pool := hbone.NewPool(func(ctx context.Context, key hbone.PoolKey) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", key.Dest.String())
		if err != nil {
			return nil, err
		}
		secured, err := records.Client(ctx, conn, certs.HBONEClientConfig(own, []string{key.ExpectedSANs}))
		if err != nil {
			conn.Close()
			return nil, err
		}
		return secured, nil
	}, hbone.PoolConfig{Budget: unlimited{turns}})
	return func(l net.Listener) error {
		dest, err := netip.ParseAddrPort(s.Next)
		if err != nil {
			return err
		}
		key := hbone.PoolKey{Source: own.ID.String(), Dest: dest, ExpectedSANs: s.Expect}
		var workers netx.Workers
		return accept(l, workers.Go, func(conn *net.TCPConn) {
			ctx := context.Background()
			buf := netx.Pool.Get(netx.SmallBuffer)
			n, err := netx.Available(conn, buf)
			var stream *hbone.Stream
			var count netx.Counters
			if err == nil {
				stream, _, err = pool.Connect(ctx, &key, &hbone.Request{Authority: authority, Early: buf[:n], Lent: true, App: conn, Received: &count.Received})
			}
			if err != nil {
				conn.Close()
				return
			}
			sleepers.Relay(ctx, conn, stream, &count, nil, func(error) {}) // the load sees it fail
		})
	}
}

// authority of every CONNECT; both servers connect the app anyway.
const authority = "10.0.0.1:8080"

// isthmusServer ends tunnels and connects each stream to the app.
func isthmusServer(own *certs.Workload, s setup, records hbone.Transport, sleepers *netx.Sleepers, turns *netx.Taker) func(net.Listener) error {
	config := certs.HBONEServerConfig(func() (*certs.Workload, error) { return own, nil })
	return func(l net.Listener) error {
		app, err := netip.ParseAddrPort(s.Next)
		if err != nil {
			return err
		}
		handler := appHandler{netx.HostNS(netx.Options{}), app, sleepers}
		return accept(l, spawn, func(conn *net.TCPConn) {
			defer conn.Close()
			secured, err := records.Server(context.Background(), conn, config)
			if err != nil {
				return
			}
			_ = hbone.ServeConn(context.Background(), secured, handler, hbone.ServerConfig{Budget: unlimited{turns}}) // the client sees it end
		})
	}
}

// unlimited is the budget of a workload that only takes turns.
type unlimited struct{ turns *netx.Taker }

func (unlimited) Hold(int64)               {}
func (unlimited) Pressure() hbone.Pressure { return hbone.Relaxed }
func (u unlimited) Turns() *netx.Taker     { return u.turns }

type appHandler struct {
	host     *netx.NS
	app      netip.AddrPort
	sleepers *netx.Sleepers
}

// ServeCONNECT implements hbone.Handler.
func (h appHandler) ServeCONNECT(ctx context.Context, _ *hbone.Request, w hbone.ResponseWriter) {
	app, err := h.host.Dial(ctx, "tcp", h.app, netip.Addr{})
	if err != nil {
		w.Refuse(503, nil)
		return
	}
	stream, err := w.Accept(nil)
	if err != nil {
		app.Close()
		return
	}
	done := w.Detach()
	h.sleepers.Relay(ctx, stream, app.(*net.TCPConn), nil, nil, func(error) { done() }) // both ends see it fail
}
