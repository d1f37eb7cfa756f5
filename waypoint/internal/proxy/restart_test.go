package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// meshClient is a client behind a node proxy, which pools tunnels to the waypoints that are endpoints now.
type meshClient struct {
	pool      *hbone.Pool
	endpoints atomic.Pointer[[]netip.AddrPort]
	next      atomic.Uint64
}

func (b *bed) meshClient(h2 bool) (*meshClient, *http.Client) {
	own := b.identity("productpage").Workload
	m := &meshClient{pool: hbone.NewPool(func(ctx context.Context, key hbone.PoolKey) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", key.Dest.String())
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, certs.HBONEClientConfig(own, []string{"spiffe://cluster.local/ns/default/sa/waypoint"}))
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return secured, nil
	}, hbone.PoolConfig{})}
	b.t.Cleanup(func() { m.pool.Close() })
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			// As a node proxy does: where one has left before that was heard of, another one is asked.
			now := *m.endpoints.Load()
			var last error
			for range now {
				s, _, err := m.pool.Connect(ctx, &hbone.PoolKey{Dest: now[m.next.Add(1)%uint64(len(now))]}, &hbone.Request{Authority: vip})
				if err == nil {
					return s, nil
				}
				last = err
			}
			return nil, last
		},
		MaxIdleConnsPerHost: 100, DisableCompression: true, Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetUnencryptedHTTP2(h2)
	b.t.Cleanup(transport.CloseIdleConnections)
	return m, &http.Client{Transport: transport}
}

// TestRestartUnderLoad scales the waypoint up and down while requests go on, as Kubernetes does: a replica that ends is told so
// first, then it leaves the endpoints, and others hear of that later.
func TestRestartUnderLoad(t *testing.T) {
	b := newBedWith(t, Limits{DrainGrace: 2 * time.Second})
	pod := b.backend("reviews", drained("ok"))
	b.apply(pod)
	one, c1 := b.meshClient(false)
	two, c2 := b.meshClient(true)
	announce := func(servers ...*Server) {
		var at []netip.AddrPort
		for _, s := range servers {
			at = append(at, s.Address("connect_terminate"))
		}
		one.endpoints.Store(&at)
		two.endpoints.Store(&at)
	}
	start := func() *Server {
		s := New(Deps{Certs: b.identity("waypoint"), Observer: Nobody{}, Log: testLog(t), Limits: b.server.deps.Limits})
		t.Cleanup(func() { s.Close() })
		// A socket of its own: listeners are not shared between the replicas of a test.
		cfg := b.cfg.With(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8080": nil}})
		if err := s.SetConfig(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		return s
	}
	running := []*Server{b.server}
	announce(running...)
	done, stop := b.load(c1, c2)
	progress := func(n int64) {
		before := done.Load()
		until(t, "requests go on", func() bool { return done.Load() > before+n || t.Failed() })
	}
	progress(50)
	for range 4 {
		fresh := start()
		announce(append(running, fresh)...)
		progress(50)
		old := running[0]
		running = []*Server{fresh}
		drain := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		go func() { drain <- old.Drain(ctx) }()
		progress(10)
		announce(running...)
		progress(50)
		if err := <-drain; err != nil {
			t.Error(fmt.Errorf("drain: %w", err))
		}
		cancel()
	}
	stop()
}
