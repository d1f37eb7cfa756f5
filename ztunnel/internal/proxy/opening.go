package proxy

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// opening is an outbound connection on its way to its next hop. It is used by one goroutine.
type opening struct {
	instance    *Instance
	app         *net.TCPConn
	source, dst netip.AddrPort
	bytes       *netx.Counters

	local *l4.Workload
	route l4.Route // of the attempt under way
	early []byte   // what the application has sent by then: it goes with the first request that is accepted
	again repeats
}

// traffic describes the connection as it goes now.
func (o *opening) traffic() traffic {
	t := traffic{outbound: true, src: o.source, dst: o.route.Target, source: o.local, destination: o.route.Destination, service: o.route.Service}
	if o.route.HBONE {
		t.secure, t.sourceID, t.destinationID = true, o.local.Identity(), o.route.NextHop()
		t.hboneDst = o.route.Authority
	}
	return t
}

// info is how the connection is listed as it goes now.
func (o *opening) info() ConnInfo {
	return ConnInfo{Src: o.source, OriginalDst: o.dst.String(), ActualDst: o.route.Target, Protocol: protocolName(o.route.HBONE)}
}

// connect opens the upstream side. What fails before the peer has got anything of the connection's content is repeated as the kind
// of the route allows: another endpoint may do what this one did not. See repeats.
func (o *opening) connect(ctx context.Context) (netx.Stream, error) {
	limit := o.instance.deps.Config.ConnectTimeout
	if o.route.HBONE {
		// Connect covers the wait for a certificate, TCP, TLS, and the peer's dial of its application.
		limit += o.instance.deps.Config.HandshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	o.again.until = time.Now().Add(o.instance.deps.Config.RepeatWindow)
	// One that goes through a tunnel is in here until the application speaks again, so its stack is small; see carry.
	upstream, err := o.attempt(ctx)
	for err != nil && o.next(ctx, err) {
		upstream, err = o.attempt(ctx)
	}
	cancel()
	if o.early != nil {
		netx.Pool.Put(o.early)
	}
	return upstream, err
}

// attempt opens the upstream side of the present route. What the application has sent by then goes with it.
func (o *opening) attempt(ctx context.Context) (netx.Stream, error) {
	if !o.route.HBONE {
		return o.dial(ctx)
	}
	request, key, err := o.request()
	if err != nil {
		return nil, err
	}
	stream, _, err := o.instance.pool.Connect(ctx, key, request) // returns when the application has more to say
	return o.attempted(stream, request, err)
}

// attempted is what came of a CONNECT.
func (o *opening) attempted(stream *hbone.Stream, request *hbone.Request, err error) (netx.Stream, error) {
	sent := len(o.early)
	o.early = request.Early
	if err != nil {
		return nil, explainTunnel(o.route.Target, err)
	}
	o.bytes.Sent.Add(uint64(sent))
	return stream, nil
}

// request is the CONNECT of the present route, and the key of the connections that may carry it.
func (o *opening) request() (*hbone.Request, *hbone.PoolKey, error) {
	request := &hbone.Request{Authority: o.route.Authority, Patience: o.again.patience(o.route)}
	request.Header.Add("baggage", baggageOf(o.local))
	host := ""
	if o.route.Service != nil {
		host = o.route.Service.Hostname
	}
	request.Header.Add("forwarded", hbone.FormatForwarded(o.source, host))
	request.Header.Add("traceparent", hbone.NewTraceparent())
	if err := o.read(); err != nil {
		return nil, nil, fail(flagConnect, "read from the application: %w", err)
	}
	request.Early, request.Lent, request.App, request.Received = o.early, true, o.app, &o.bytes.Received
	return request, &hbone.PoolKey{
		Source: o.local.Identity().String(), SourceIP: o.source.Addr(), Dest: o.route.Target, ExpectedSANs: strings.Join(o.route.ExpectSANs, ","),
	}, nil
}

// read takes what the application has sent by now, unless that was done before.
func (o *opening) read() error {
	if o.early != nil {
		return nil
	}
	buffer := netx.Pool.Get(netx.SmallBuffer)
	n, err := netx.Available(o.app, buffer)
	if n == 0 {
		netx.Pool.Put(buffer)
		return err
	}
	o.early = buffer[:n]
	return err
}

// dial opens a connection without a tunnel.
func (o *opening) dial(ctx context.Context) (netx.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, o.instance.deps.Config.ConnectTimeout)
	defer cancel()
	conn, err := o.instance.pod.Net.Dial(ctx, "tcp", o.route.Target, netip.Addr{})
	if err != nil {
		return nil, explainDial(o.route.Target, err)
	}
	return asStream(conn)
}

// next decides anew after a failure, by what is known now. It is false when that is the end.
func (o *opening) next(ctx context.Context, failed error) bool {
	remedy := remedyFor(o.route, failed)
	if remedy == none || ctx.Err() != nil || netx.IsReset(o.app) || !o.again.take(o.route, remedy) {
		return false
	}
	o.again.know(o.route.Destination)
	before := o.route.Target
	if !o.decide(ctx, remedy) {
		return false
	}
	o.instance.deps.Log.Debug("connecting again", "src.addr", o.source, "dst.addr", before, "next", o.route.Target,
		"attempt", o.again.count+1, "error", failed.Error())
	return true
}

// decide waits for a route that is worth an attempt: to an endpoint that has not been tried, at once, or to one that has, after a pause.
func (o *opening) decide(ctx context.Context, remedy remedy) bool {
	i := o.instance
	pause := time.NewTimer(o.again.pause())
	defer pause.Stop()
	for {
		state, local, err := i.local.Workload(ctx)
		if err != nil {
			return false
		}
		route, err := i.route(ctx, state, l4.Conn{SourceWorkload: local, Source: o.source, Dst: o.dst, Rand: rand.Uint64N, Avoid: o.again.tried})
		if err == nil && o.route.HBONE && !route.HBONE {
			return false // what was to be protected is not sent in plain text after all
		}
		if err == nil && o.again.fresh(route) {
			o.local, o.route = local, route
			return true
		}
		if remedy != anywhere {
			return false
		}
		select {
		case <-pause.C:
			if err == nil {
				o.local, o.route = local, route
				return true
			}
			if !o.again.take(o.route, remedy) {
				return false
			}
			pause.Reset(o.again.pause())
		case <-state.Superseded():
		case <-ctx.Done():
			return false
		}
	}
}
