package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
)

// testbed is the backends, the control plane, and the proxies between the load and the backends.
type testbed struct {
	options options
	dir     string
	plane   *plane
	h1, h2  netip.AddrPort // backends
	client  *certs.Workload
	server  *certs.Workload

	listeners []net.Listener
	gateways  []*proxy // ours first
	waypoints []*proxy
}

func newTestbed(o options) (b *testbed, err error) {
	b = &testbed{options: o}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	for _, path := range []*string{&b.options.envoy, &b.options.profiles} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return b, err
		}
	}
	if b.dir, err = os.MkdirTemp("", "benchl7-"); err != nil {
		return b, err
	}
	if b.plane, err = startPlane(); err != nil {
		return b, err
	}
	if b.h1, err = b.serve("127.0.0.1:0", serveH1); err != nil {
		return b, err
	}
	if b.h2, err = b.serve("127.0.0.1:0", serveH2); err != nil {
		return b, err
	}
	if b.client, _, err = issue(b.plane.authority, account("client")); err != nil {
		return b, err
	}
	b.server, _, err = issue(b.plane.authority, account("server"))
	return b, err
}

func (b *testbed) close() {
	for _, p := range append(b.gateways, b.waypoints...) {
		p.stop()
	}
	for _, l := range b.listeners {
		l.Close()
	}
	b.plane.close()
	os.RemoveAll(b.dir)
}

// serve answers connections until the test bed is closed.
func (b *testbed) serve(address string, answer func(net.Conn) error) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b.listeners = append(b.listeners, l)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if err := answer(conn); err != nil && !errors.Is(err, errEnded) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
					fmt.Fprintln(os.Stderr, "backend:", err)
				}
			}()
		}
	}()
	return netip.ParseAddrPort(l.Addr().String())
}

// ServeCONNECT implements hbone.Handler: the node proxy and the pod behind the waypoint.
func (b *testbed) ServeCONNECT(_ context.Context, r *hbone.Request, w hbone.ResponseWriter) {
	stream, err := w.Accept(nil)
	if err != nil {
		return
	}
	defer stream.Close()
	answer := serveH1
	if strings.HasSuffix(r.Authority, fmt.Sprintf(":%d", servicePort+1)) {
		answer = serveH2
	}
	if err := answer(stream); !errors.Is(err, errEnded) && !errors.Is(err, hbone.ErrReset) {
		fmt.Fprintln(os.Stderr, "backend behind the waypoint:", err)
	}
}

func (b *testbed) serveHBONE(conn net.Conn) error {
	secured := tls.Server(conn, certs.HBONEServerConfig(func() (*certs.Workload, error) { return b.server, nil }))
	if err := secured.Handshake(); err != nil {
		return err
	}
	_ = hbone.ServeConn(context.Background(), secured, b, hbone.ServerConfig{}) // its client sees it end
	return nil
}

// startGateways runs the proxies in the role of a gateway, once.
func (b *testbed) startGateways(ctx context.Context) error {
	if len(b.gateways) > 0 {
		return nil
	}
	for _, name := range []string{isthmus, haproxy, envoyed} {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		var p *proxy
		if name == haproxy {
			p, err = b.startHAProxy(ctx, name+"-gateway", address)
		} else {
			var r resources
			if r, err = gatewayResources(address, b.h1, b.h2); err != nil {
				return err
			}
			p, err = b.start(ctx, name, "router", name+"-gateway", address, r)
		}
		if err != nil {
			return err
		}
		b.gateways = append(b.gateways, p)
		if err := b.await(p, func() error { return b.verify(ctx, p) }); err != nil {
			return err
		}
	}
	return nil
}

// startWaypoints runs those that can be one in the role of a waypoint, once.
func (b *testbed) startWaypoints(ctx context.Context) error {
	if len(b.waypoints) > 0 {
		return nil
	}
	if _, err := b.serve(pod+":15008", b.serveHBONE); err != nil {
		return err
	}
	for _, name := range []string{isthmus, envoyed} {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		r, err := waypointResources(address, b.server.ID.String(), hosts)
		if err != nil {
			return err
		}
		p, err := b.start(ctx, name, "waypoint", name+"-waypoint", address, r)
		if err != nil {
			return err
		}
		b.waypoints = append(b.waypoints, p)
		err = b.await(p, func() error {
			for _, connect := range []connector{connectHBONE(1), connectHBONEH2(1, 1)} {
				s, err := connect(ctx, b, p)
				if err != nil {
					return err
				}
				err = s.load(1)
				s.close()
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *testbed) start(ctx context.Context, name, kind, pod string, address netip.AddrPort, r resources) (*proxy, error) {
	b.plane.set(pod, r)
	if name == isthmus {
		return b.startIsthmus(ctx, kind, pod, address)
	}
	return b.startEnvoy(ctx, kind, pod, address)
}

// await waits until a proxy does what it is to do.
func (b *testbed) await(p *proxy, check func() error) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return b.plane.problem()
		}
		if ended := p.alive(); ended != nil {
			return ended
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not work: %w", p.name, errors.Join(err, b.plane.problem(), errors.New(p.said())))
		}
		<-time.After(20 * time.Millisecond)
	}
}

// verify checks that a gateway has its routes and its policies, all of them: only who does the same work can be compared.
func (b *testbed) verify(ctx context.Context, p *proxy) error {
	for _, want := range []struct {
		method, host, path string
		status             int
	}{
		{http.MethodPost, domain(0), pathPrefix(0) + "x", 200},
		{http.MethodPost, domain(hosts/2 - 1), pathPrefix(routesPerHost-1) + "x", 200},
		{http.MethodPost, domain(hosts - 1), pathPrefix(routesPerHost-1) + "x", 200},
		{http.MethodPost, domain(0), "/api/v1/other", 404},
		{http.MethodPost, domain(hosts), pathPrefix(0) + "x", 404},
		{http.MethodPost, domain(0), "/admin/x", 403},
		{http.MethodDelete, domain(0), pathPrefix(0) + "x", 403},
	} {
		r, err := http.NewRequestWithContext(ctx, want.method, "http://"+p.address.String()+want.path, strings.NewReader(string(payload())))
		if err != nil {
			return err
		}
		r.Host = want.host
		response, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != want.status || want.status == 200 && len(body) != bodySize {
			return fmt.Errorf("%s %s %s: %s, %d bytes, %w; want %d", want.method, want.host, want.path, response.Status, len(body), err, want.status)
		}
	}
	return nil
}

func freeAddress() (netip.AddrPort, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer l.Close()
	return netip.ParseAddrPort(l.Addr().String())
}
