package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
)

// client is a connection that makes requests, each as soon as the one before it is answered.
type client interface {
	run(n int, times *stopwatch) error
	// pace makes n requests when they are due, as far as the connection has room for them.
	pace(n int, p *pacer, times *stopwatch) error
	close()
}

type moment = time.Time

// stopwatch notes how long requests take.
type stopwatch struct{ took []time.Duration }

func (s *stopwatch) now() moment      { return time.Now() }
func (s *stopwatch) add(start moment) { s.took = append(s.took, time.Since(start)) }

// session is all connections of a scenario to one proxy. They stay open from one repetition to the next.
type session struct {
	proxy   *proxy
	clients []client
	watches []stopwatch
	end     func()

	cpu, allocations []float64 // of each repetition
	slow, middle     []float64 // 99th and 50th percentile of each, in nanoseconds; the latter where the load is paced
}

func (s *session) close() {
	for _, c := range s.clients {
		c.close()
	}
	if s.end != nil {
		s.end()
	}
}

// load makes n requests, spread over the connections.
func (s *session) load(n int) error {
	var g errgroup.Group
	share := max(n/len(s.clients), 1)
	for i, c := range s.clients {
		s.watches[i].took = s.watches[i].took[:0]
		g.Go(func() error { return c.run(share, &s.watches[i]) })
	}
	return g.Wait()
}

// measure makes n requests and notes what they have cost, each.
func (s *session) measure(n int) error {
	before, err := s.proxy.used()
	if err != nil {
		return err
	}
	if err := s.load(n); err != nil {
		return err
	}
	after, err := s.proxy.used()
	if err != nil {
		return err
	}
	all := s.times()
	done := float64(len(all))
	s.cpu = append(s.cpu, float64(after.cpu-before.cpu)/done)
	s.allocations = append(s.allocations, float64(after.allocations-before.allocations)/done)
	s.slow = append(s.slow, float64(all[len(all)*99/100]))
	return nil
}

// hostOf spreads connections over a few of the services that speak a protocol.
func hostOf(conn int, http2 bool) int {
	host := 5 + conn%4*11
	if http2 {
		host += hosts / 2
	}
	return host
}

func requestOf(conn int, http2 bool) request {
	return request{domain(hostOf(conn, http2)), pathPrefix(conn%routesPerHost) + "items/4711?fields=name,price"}
}

func dial(ctx context.Context, p *proxy) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", p.address.String())
}

// connector opens the connections of a scenario to a proxy.
type connector func(context.Context, *testbed, *proxy) (*session, error)

// connectH1 opens connections of HTTP/1.1.
func connectH1(conns int) connector {
	return func(ctx context.Context, _ *testbed, p *proxy) (*session, error) {
		s := &session{proxy: p, watches: make([]stopwatch, conns)}
		for i := range conns {
			conn, err := dial(ctx, p)
			if err != nil {
				s.close()
				return nil, err
			}
			s.clients = append(s.clients, newH1Client(conn, requestOf(i, false)))
		}
		return s, nil
	}
}

// connectH2 opens connections of HTTP/2, each for a number of requests at once.
func connectH2(conns, streams int) connector {
	return func(ctx context.Context, _ *testbed, p *proxy) (*session, error) {
		s := &session{proxy: p, watches: make([]stopwatch, conns)}
		for i := range conns {
			conn, err := dial(ctx, p)
			if err != nil {
				s.close()
				return nil, err
			}
			c, err := newH2Client(conn, requestOf(i, true), streams)
			if err != nil {
				conn.Close()
				s.close()
				return nil, err
			}
			s.clients = append(s.clients, c)
		}
		return s, nil
	}
}

// connectHBONE opens connections of HTTP/1.1 through tunnels to a waypoint, as a node proxy does.
func connectHBONE(conns int) connector {
	return tunnelled(conns, false, func(conn net.Conn, r request) (client, error) { return newH1Client(conn, r), nil })
}

// connectHBONEH2 opens connections of HTTP/2 in the same way, each for a number of requests at once.
func connectHBONEH2(conns, streams int) connector {
	return tunnelled(conns, true, func(conn net.Conn, r request) (client, error) { return newH2Client(conn, r, streams) })
}

func tunnelled(conns int, http2 bool, begin func(net.Conn, request) (client, error)) connector {
	return func(ctx context.Context, b *testbed, p *proxy) (*session, error) {
		pool := hbone.NewPool(func(ctx context.Context, key hbone.PoolKey) (net.Conn, error) {
			d := tls.Dialer{Config: certs.HBONEClientConfig(b.client, []string{key.ExpectedSANs})}
			return d.DialContext(ctx, "tcp", key.Dest.String())
		}, hbone.PoolConfig{})
		s := &session{proxy: p, watches: make([]stopwatch, conns), end: func() { pool.Close() }}
		key := hbone.PoolKey{Source: b.client.ID.String(), Dest: p.address, ExpectedSANs: account("proxy").String()}
		for i := range conns {
			host := hostOf(i, http2)
			stream, _, err := pool.Connect(ctx, &key, &hbone.Request{Authority: netip.AddrPortFrom(vip(host), servicePort).String()})
			if err != nil {
				s.close()
				return nil, err
			}
			r := requestOf(i, http2)
			r.authority = hostname(host)
			c, err := begin(stream, r)
			if err != nil {
				stream.Close()
				s.close()
				return nil, err
			}
			s.clients = append(s.clients, c)
		}
		return s, nil
	}
}
