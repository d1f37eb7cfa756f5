package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

type global struct{}

func (global) Uint64() uint64 { return rand.Uint64() }

// app is a plain HTTP server that counts.
type app struct {
	*httptest.Server
	address  netip.AddrPort
	requests atomic.Int64
	conns    atomic.Int64
}

func newApp(t *testing.T, h http.HandlerFunc) *app {
	t.Helper()
	a := &app{}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		h(w, r)
	}))
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			a.conns.Add(1)
		}
	}
	a.Config.Protocols = new(http.Protocols)
	a.Config.Protocols.SetHTTP1(true)
	a.Config.Protocols.SetUnencryptedHTTP2(true)
	a.Start()
	t.Cleanup(a.Close)
	a.address = a.Listener.Addr().(*net.TCPAddr).AddrPort()
	return a
}

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello "+r.Proto) }

func cluster(name string, http l7.UpstreamHTTP) *l7.Cluster {
	return &l7.Cluster{
		Name: name, Discovery: l7.DiscoveryEDS, EDSName: name, HTTP: http, Connect: 30 * time.Second, LocalEndpoints: true,
		LB:       l7.LB{Policy: l7.LBLeastRequest, PanicThreshold: 50},
		Breakers: l7.Breakers{MaxConnections: 1 << 30, MaxPending: 1 << 30, MaxRequests: 1 << 30, MaxRetries: 3},
	}
}

func config(c *l7.Cluster, hosts ...netip.AddrPort) *l7.Config {
	e := &l7.Endpoints{Cluster: c.Name, Overprovisioning: 140}
	for _, h := range hosts {
		e.List = append(e.List, &l7.Endpoint{Address: h, Weight: 1})
	}
	return l7.NewConfig().With(l7.Update{Clusters: map[string]*l7.Cluster{c.Name: c}, Endpoints: map[string]*l7.Endpoints{c.Name: e}})
}

func newManager(t *testing.T) *Manager {
	t.Helper()
	m := NewManager(Deps{Network: netx.HostNS(netx.Options{}), Log: slog.New(slog.DiscardHandler), Resolver: net.DefaultResolver})
	t.Cleanup(m.Close)
	return m
}

// get makes one request over the cluster.
func get(ctx context.Context, c *Cluster) (string, error) {
	h := c.Pick(&Choice{Rand: global{}})
	if h == nil {
		return "", errors.New("no host")
	}
	return getFrom(ctx, h)
}

func getFrom(ctx context.Context, h *Host) (string, error) {
	var s Stream
	head := &httpmsg.Head{Method: "GET", Scheme: "http", Authority: "app", Path: "/"}
	if err := h.Open(ctx, head, true, httpmsg.HTTP11, &s); err != nil {
		return "", err
	}
	defer s.Close()
	response, err := s.Response(ctx, nil)
	if err != nil {
		return "", err
	}
	if response.Status != 200 {
		return "", fmt.Errorf("status %d", response.Status)
	}
	body, err := io.ReadAll(&s)
	return string(body), err
}

func TestConnectionsAreReused(t *testing.T) {
	for _, test := range []struct {
		name string
		http l7.UpstreamHTTP
		want string
	}{{"HTTP/1", l7.UpstreamHTTP1, "hello HTTP/1.1"}, {"HTTP/2", l7.UpstreamHTTP2, "hello HTTP/2.0"}} {
		t.Run(test.name, func(t *testing.T) {
			a := newApp(t, hello)
			m := newManager(t)
			c := m.Update(config(cluster("c", test.http), a.address))["c"]
			for range 10 {
				if got, err := get(t.Context(), c); err != nil || got != test.want {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if a.conns.Load() != 1 {
				t.Errorf("%d connections for 10 requests", a.conns.Load())
			}
			state := m.State()[0]
			if state.Stats.CxActive != 1 || state.Stats.RqTotal != 10 || state.Stats.RqActive != 0 || state.Hosts[0].RqTotal != 10 {
				t.Errorf("%+v", state)
			}
		})
	}
}

// TestCancelIsNotClose cancels requests that have ended, as a timer does that fires late: what they were made of serves others by then.
func TestCancelIsNotClose(t *testing.T) {
	for _, protocol := range []l7.UpstreamHTTP{l7.UpstreamHTTP1, l7.UpstreamHTTP2} {
		a := newApp(t, hello)
		m := newManager(t)
		host := m.Update(config(cluster("c", protocol), a.address))["c"].Pick(&Choice{Rand: global{}})
		var late [4]Stream
		for i := range 40 * len(late) {
			s := &late[i%len(late)]
			s.Cancel() // of the request that it was before, or of none
			head := &httpmsg.Head{Method: "GET", Scheme: "http", Authority: "app", Path: "/"}
			if err := host.Open(t.Context(), head, true, httpmsg.HTTP11, s); err != nil {
				t.Fatal(err)
			}
			var cancels sync.WaitGroup
			for j := range late {
				if j != i%len(late) {
					cancels.Go(late[j].Cancel)
				}
			}
			response, err := s.Response(t.Context(), nil)
			if err == nil {
				_, err = io.ReadAll(s)
			}
			if err != nil || response.Status != 200 {
				t.Fatalf("protocol %v, request %d: %v", protocol, i, err)
			}
			cancels.Go(s.Cancel) // while it ends
			s.Close()
			cancels.Wait()
		}
		if n := m.State()[0].Stats.RqActive; n != 0 {
			t.Errorf("%d requests are open", n)
		}
	}
}

func TestConnectFailures(t *testing.T) {
	nobody := tcp.Nobody(t)
	for _, version := range []l7.UpstreamHTTP{l7.UpstreamHTTP1, l7.UpstreamHTTP2} {
		c := newManager(t).Update(config(cluster("c", version), nobody))["c"]
		_, err := get(t.Context(), c)
		var e *Error
		if !errors.As(err, &e) || e.Reason != ConnectionFailure || e.Transport != "delayed_connect_error:_Connection_refused" || e.Failure() != l7.FailureConnect {
			t.Errorf("%#v", err)
		}
		if s := c.state().Stats; s.CxConnectFail != 1 || s.CxActive != 0 || s.RqActive != 0 || s.RqPending != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestCircuitBreakers(t *testing.T) {
	release := make(chan struct{})
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		hello(w, r)
	})
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.Breakers = l7.Breakers{MaxConnections: 1, MaxPending: 1, MaxRequests: 1 << 30}
	m := newManager(t)
	c := m.Update(config(conf, a.address))["c"]
	results := make(chan error, 3)
	request := func() {
		_, err := get(t.Context(), c)
		results <- err
	}
	go request()
	until(t, "the first request is there", func() bool { return a.requests.Load() == 1 })
	go request() // waits for the connection
	until(t, "the second waits", func() bool { return c.state().Stats.RqPending == 1 })
	_, err := get(t.Context(), c)
	var e *Error
	if !errors.As(err, &e) || e.Reason != Overflow {
		t.Errorf("the third: %v", err)
	}
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if a.conns.Load() != 1 {
		t.Errorf("%d connections", a.conns.Load())
	}
	if s := c.state().Stats; s.RqPendingOverflow != 1 || s.RqPending != 0 || s.RqActive != 0 || s.CxActive != 1 {
		t.Errorf("%+v", s)
	}
}

func TestMaxRequests(t *testing.T) {
	release := make(chan struct{})
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		hello(w, r)
	})
	conf := cluster("c", l7.UpstreamHTTP2)
	conf.Breakers.MaxRequests = 2
	c := newManager(t).Update(config(conf, a.address))["c"]
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := get(t.Context(), c)
			results <- err
		}()
	}
	until(t, "both are there", func() bool { return a.requests.Load() == 2 })
	var e *Error
	if _, err := get(t.Context(), c); !errors.As(err, &e) || e.Reason != Overflow {
		t.Errorf("the third: %v", err)
	}
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestHostsThatGoFinishTheirRequests(t *testing.T) {
	for _, version := range []l7.UpstreamHTTP{l7.UpstreamHTTP1, l7.UpstreamHTTP2} {
		release := make(chan struct{})
		slow := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			<-release
			hello(w, r)
		})
		other := newApp(t, hello)
		m := newManager(t)
		conf := cluster("c", version)
		c := m.Update(config(conf, slow.address))["c"]
		result := make(chan error, 1)
		go func() {
			_, err := get(t.Context(), c)
			result <- err
		}()
		until(t, "the request is there", func() bool { return slow.requests.Load() == 1 })
		gone := c.Pick(&Choice{Rand: global{}})
		m.Update(config(conf, other.address))
		for range 5 {
			if _, err := get(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		if slow.requests.Load() != 1 || other.requests.Load() != 5 {
			t.Errorf("%d requests to the host that went, %d to the other", slow.requests.Load(), other.requests.Load())
		}
		close(release)
		if err := <-result; err != nil {
			t.Error(err)
		}
		until(t, "its connection is closed", func() bool { return gone.stats.cxActive.Load() == 0 })
		// Who had chosen it before still gets through.
		if _, err := getFrom(t.Context(), gone); err != nil {
			t.Error(err)
		}
		until(t, "and that connection, too", func() bool { return gone.stats.cxActive.Load() == 0 })
	}
}

func TestChurnUnderLoadFailsNothing(t *testing.T) {
	for _, version := range []l7.UpstreamHTTP{l7.UpstreamHTTP1, l7.UpstreamHTTP2} {
		var apps []netip.AddrPort
		for range 4 {
			apps = append(apps, newApp(t, hello).address)
		}
		m := newManager(t)
		conf := cluster("c", version)
		c := m.Update(config(conf, apps...))["c"]
		stop := make(chan struct{})
		var work sync.WaitGroup
		var done atomic.Int64
		for range 8 {
			work.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := get(context.Background(), c); err != nil {
						t.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
		for i := range 200 {
			before := done.Load()
			m.Update(config(conf, apps[i%4], apps[(i+1)%4]))
			until(t, "requests go on", func() bool { return done.Load() > before+5 || t.Failed() })
		}
		close(stop)
		work.Wait()
	}
}

func TestWaitingIsGivenUpWithTheRequest(t *testing.T) {
	release := make(chan struct{})
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		hello(w, r)
	})
	defer close(release)
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.Breakers.MaxConnections = 1
	c := newManager(t).Update(config(conf, a.address))["c"]
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := get(ctx, c)
		first <- err
	}()
	until(t, "the first request is there", func() bool { return a.requests.Load() == 1 })
	second := make(chan error, 1)
	waiting, giveUp := context.WithCancel(t.Context())
	go func() {
		_, err := get(waiting, c)
		second <- err
	}()
	until(t, "the second waits", func() bool { return c.state().Stats.RqPending == 1 })
	giveUp()
	if err := <-second; err == nil {
		t.Error("the second got an answer")
	}
	cancel()
	if err := <-first; err == nil {
		t.Error("the first got an answer")
	}
	until(t, "everything is given back", func() bool {
		s := c.state().Stats
		return s.RqPending == 0 && s.RqActive == 0 && s.CxActive == 0
	})
}

func TestNamesAreResolved(t *testing.T) {
	a := newApp(t, hello)
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.Discovery = l7.DiscoveryStrictDNS
	conf.Static = &l7.Endpoints{List: []*l7.Endpoint{{Host: "localhost", Port: a.address.Port(), Weight: 1}}}
	m := NewManager(Deps{Network: netx.HostNS(netx.Options{}), Log: slog.New(slog.DiscardHandler), Resolver: names{"localhost": "127.0.0.1"}})
	defer m.Close()
	c := m.Update(l7.NewConfig().With(l7.Update{Clusters: map[string]*l7.Cluster{"c": conf}}))["c"]
	until(t, "the name is resolved", func() bool { return c.Pick(&Choice{Rand: global{}}) != nil })
	if got, err := get(t.Context(), c); err != nil || got != "hello HTTP/1.1" {
		t.Errorf("%q, %v", got, err)
	}
}

type names map[string]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr(n[host])}, nil
}

func TestDestinationOfTheClient(t *testing.T) {
	a := newApp(t, hello)
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.Discovery, conf.LB.Policy = l7.DiscoveryOriginalDst, l7.LBClusterProvided
	m := newManager(t)
	c := m.Update(l7.NewConfig().With(l7.Update{Clusters: map[string]*l7.Cluster{"c": conf}}))["c"]
	h := c.Pick(&Choice{Rand: global{}, Conn: &l7.Conn{Destination: a.address}})
	if h == nil {
		t.Fatal("no host")
	}
	if got, err := getFrom(t.Context(), h); err != nil || got != "hello HTTP/1.1" || h.Address() != a.address.String() {
		t.Errorf("%q, %v from %s", got, err, h.Address())
	}
	if c.Pick(&Choice{Rand: global{}, Conn: &l7.Conn{}}) != nil {
		t.Error("a host without a destination")
	}
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, ok, nil)
}

func TestOutliersAreEjectedAndReadmitted(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	sick := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		hello(w, r)
	})
	well := newApp(t, hello)
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.LB.Policy = l7.LBRoundRobin
	conf.Outlier = &l7.Outlier{
		Consecutive5xx: 3, Interval: time.Second, BaseEjection: 100 * time.Millisecond, MaxEjection: time.Second, MaxEjectionPercent: 50,
	}
	m := newManager(t)
	c := m.Update(config(conf, sick.address, well.address))["c"]
	request := func() {
		h := c.Pick(&Choice{Rand: global{}})
		status := 200
		if _, err := getFrom(t.Context(), h); err != nil {
			status = 500
		}
		c.Answered(h, status)
	}
	until(t, "the sick one is ejected", func() bool {
		request()
		return m.State()[0].Stats.EjectionsActive == 1
	})
	before, ejections := sick.requests.Load(), m.State()[0].Stats.EjectionsTotal
	for range 10 {
		request()
	}
	// On a slow machine its time may be over by now.
	if s := m.State()[0].Stats; sick.requests.Load() != before && s.EjectionsActive == 1 && s.EjectionsTotal == ejections {
		t.Error("it still gets requests")
	}
	broken.Store(false)
	until(t, "it is back", func() bool {
		request()
		return sick.requests.Load() > before
	})
	if s := m.State()[0].Stats; s.EjectionsTotal == 0 || s.MembershipTotal != 2 {
		t.Errorf("%+v", s)
	}
}

func TestSlowStart(t *testing.T) {
	old, fresh := newApp(t, hello), newApp(t, hello)
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.LB.Policy = l7.LBRandom
	m := newManager(t)
	m.Update(config(conf, old.address))
	slow := *conf
	slow.LB.SlowStart, slow.LB.SlowStartAggression, slow.LB.SlowStartMin = time.Hour, 1, 10
	c := m.Update(config(&slow, old.address, fresh.address))["c"]
	for _, h := range c.view.Load().hosts {
		if h.Endpoint().Address == old.address {
			h.since = h.since.Add(-2 * time.Hour)
		}
	}
	n := 0
	for range 1000 {
		if c.Pick(&Choice{Rand: global{}}).Endpoint().Address == fresh.address {
			n++
		}
	}
	if n < 40 || n > 300 {
		t.Errorf("the new host got %d of 1000", n)
	}
}
