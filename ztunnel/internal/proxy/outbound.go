package proxy

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// serveOutbound carries one redirected connection of the pod; false says that it has ended before.
func (i *Instance) serveOutbound(ctx context.Context, conn *net.TCPConn) (carried bool) {
	opening := i.decideOutbound(ctx, conn)
	if opening == nil {
		return false
	}
	o := i.openOutbound(ctx, opening)
	if o == nil {
		return false
	}
	o.done = i.release
	i.carry(o)
	return true
}

// decideOutbound decides where a connection goes; nil, when it goes nowhere, has been logged.
func (i *Instance) decideOutbound(ctx context.Context, conn *net.TCPConn) *opening {
	source := addrPort(conn.RemoteAddr())
	dst, err := netx.OriginalDst(conn)
	if err != nil {
		i.logEarly(directionOutbound, source, netip.AddrPort{}, err)
		return nil
	}
	state, local, err := i.local.Workload(ctx)
	if err != nil {
		i.logEarly(directionOutbound, source, dst, err)
		return nil
	}
	route, err := i.begins(ctx, state, l4.Conn{SourceWorkload: local, Source: source, Dst: dst, Rand: rand.Uint64N})
	if err != nil {
		i.logEarly(directionOutbound, source, dst, err)
		return nil
	}
	return &opening{instance: i, app: conn, source: source, dst: dst, local: local, route: route}
}

// begins is route, which waits a little for a waypoint without healthy instances: the next may be on its way.
func (i *Instance) begins(ctx context.Context, state *l4.State, c l4.Conn) (l4.Route, error) {
	route, err := i.route(ctx, state, c)
	if !errors.Is(err, l4.ErrWaypointAway) {
		return route, err
	}
	limited, cancel := context.WithTimeout(ctx, i.deps.Config.RepeatWindow)
	defer cancel()
	for errors.Is(err, l4.ErrWaypointAway) {
		select {
		case <-state.Superseded():
		case <-limited.Done():
			return route, err
		}
		state = i.deps.Store.Load()
		route, err = i.route(ctx, state, c)
	}
	return route, err
}

// route decides where a connection goes, with its address.
func (i *Instance) route(ctx context.Context, state *l4.State, c l4.Conn) (l4.Route, error) {
	route, err := i.decide(ctx, state, c)
	if err == nil && route.Hostname != "" {
		route, err = i.resolve(ctx, c.SourceWorkload, route, c.Dst)
	}
	return route, err
}

// openOutbound opens the way that was decided; nil is a connection that has ended.
func (i *Instance) openOutbound(ctx context.Context, opening *opening) *open {
	o := i.registerOutbound(opening, netx.NewLife(ctx))
	upstream, err := opening.connect(o.life) //nolint:contextcheck // o.life is made from ctx
	if opening.again.count > 0 {
		i.updateOutbound(o, opening)
	}
	if err != nil {
		o.record.end(err)
		i.leave(o)
		return nil
	}
	o.record.opened()
	o.connected(opening.app, upstream)
	return o
}

// registerOutbound makes a connection known before it is opened.
func (i *Instance) registerOutbound(opening *opening, life *netx.Life) *open {
	r := i.begin(opening.traffic())
	o := &open{life: life, record: r, gate: netx.NewGate(netx.Way{}, netx.Way{}), info: opening.info()}
	i.registry.add(o)
	opening.bytes = &r.bytes
	return o
}

// updateOutbound is for a connection that goes another way than it began.
func (i *Instance) updateOutbound(o *open, opening *opening) {
	o.record.traffic = opening.traffic()
	i.registry.update(o, opening.info())
}

// resolve completes a route to a workload known by host name.
func (i *Instance) resolve(ctx context.Context, local *l4.Workload, route l4.Route, dst netip.AddrPort) (l4.Route, error) {
	if i.deps.Resolver == nil {
		return route, fail(flagConnect, "resolve %s: no resolver is configured", route.Hostname)
	}
	i.deps.Metrics.onDemandDNS(local, route.Hostname)
	ctx, cancel := context.WithTimeout(ctx, i.deps.Config.ConnectTimeout)
	defer cancel()
	found, err := i.deps.Resolver.LookupNetIP(ctx, "ip", route.Hostname)
	if err != nil || len(found) == 0 {
		return route, fail(flagConnect, "resolve %s: no addresses: %w", route.Hostname, cmp.Or[error](err, errNoAddresses))
	}
	// Prefer the family that the client used: its pod certainly has it.
	rand.Shuffle(len(found), func(a, b int) { found[a], found[b] = found[b], found[a] })
	chosen := found[0].Unmap()
	for _, ip := range found {
		if ip.Unmap().Is4() == dst.Addr().Unmap().Is4() {
			chosen = ip.Unmap()
			break
		}
	}
	return route.Resolved(chosen), nil
}

// errNoAddresses is an answer without any.
var errNoAddresses = errors.New("the name has none")
