package proxy

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// serveOutbound carries one redirected connection of the pod.
func (i *Instance) serveOutbound(ctx context.Context, conn *net.TCPConn) {
	source := addrPort(conn.RemoteAddr())
	dst, err := netx.OriginalDst(conn)
	if err != nil {
		i.logEarly(directionOutbound, source, netip.AddrPort{}, err)
		return
	}
	state, local, err := i.local.Workload(ctx)
	if err != nil {
		i.logEarly(directionOutbound, source, dst, err)
		return
	}
	route, err := i.decide(ctx, state, l4.Conn{SourceWorkload: local, Source: source, Dst: dst, Rand: rand.Uint64N})
	if err == nil && route.Hostname != "" {
		route, err = i.resolve(ctx, local, route, dst)
	}
	if err != nil {
		i.logEarly(directionOutbound, source, dst, err)
		return
	}
	i.carryOutbound(ctx, conn, source, dst, local, route)
}

func (i *Instance) carryOutbound(ctx context.Context, conn *net.TCPConn, source, dst netip.AddrPort, local *l4.Workload, route l4.Route) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := traffic{outbound: true, src: source, dst: route.Target, source: local, destination: route.Destination, service: route.Service}
	if route.HBONE {
		t.secure, t.sourceID, t.destinationID = true, local.Identity(), route.NextHop()
		t.hboneDst = route.Authority
	}
	r := i.begin(t)
	o := &open{cancel: cancel, record: r, info: ConnInfo{
		Src: source, OriginalDst: dst.String(), ActualDst: route.Target, Protocol: protocolName(route.HBONE),
	}}
	i.registry.add(o)
	defer i.registry.remove(o)
	upstream, err := i.connect(ctx, conn, source, local, route, &r.bytes)
	if err != nil {
		r.end(err)
		return
	}
	defer upstream.Close()
	r.opened()
	r.end(relay(ctx, conn, upstream, &r.bytes))
}

// connect opens the upstream side of a route. What the application has sent by then goes with the tunnel's request.
func (i *Instance) connect(ctx context.Context, app *net.TCPConn, source netip.AddrPort, local *l4.Workload, route l4.Route, bytes *netx.Counters) (netx.Stream, error) {
	if !route.HBONE {
		dialling, cancel := context.WithTimeout(ctx, i.deps.Config.ConnectTimeout)
		defer cancel()
		conn, err := i.pod.Net.Dial(dialling, "tcp", route.Target, netip.Addr{})
		if err != nil {
			return nil, explainDial(route.Target, err)
		}
		return asStream(conn)
	}
	request := &hbone.Request{Authority: route.Authority}
	request.Header.Add("baggage", baggageOf(local))
	host := ""
	if route.Service != nil {
		host = route.Service.Hostname
	}
	request.Header.Add("forwarded", hbone.FormatForwarded(source, host))
	request.Header.Add("traceparent", hbone.NewTraceparent())
	// Connect covers the wait for a certificate, TCP, TLS, and the peer's dial of its application.
	connecting, cancel := context.WithTimeout(ctx, i.deps.Config.ConnectTimeout+i.deps.Config.HandshakeTimeout)
	defer cancel()
	early := netx.Pool.Get(netx.SmallBuffer)
	defer func() { netx.Pool.Put(early) }()
	n, err := netx.Available(app, early)
	if err != nil {
		return nil, fail(flagConnect, "read from the application: %w", err)
	}
	request.Early, request.App, request.Received = early[:n], app, &bytes.Received
	stream, _, err := i.pool.Connect(connecting, hbone.PoolKey{
		Source: local.Identity().String(), SourceIP: source.Addr(), Dest: route.Target, ExpectedSANs: strings.Join(route.ExpectSANs, ","),
	}, request)
	if err != nil {
		return nil, explainTunnel(route.Target, err)
	}
	bytes.Sent.Add(uint64(n))
	return stream, nil
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
