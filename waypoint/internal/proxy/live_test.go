package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// load makes requests over several clients until the returned function is called. It tells how many were answered.
func (b *bed) load(clients ...*http.Client) (done *atomic.Int64, stop func()) {
	l := b.startLoad(clients...)
	return &l.done, l.stop
}

// load is requests that go on until it is stopped, of each worker one after the other.
type load struct {
	done   atomic.Int64   // answered requests
	each   []atomic.Int64 // of each worker
	ending chan struct{}
	work   sync.WaitGroup
}

func (b *bed) startLoad(clients ...*http.Client) *load {
	const workers = 4 // of a client
	l := &load{each: make([]atomic.Int64, workers*len(clients)), ending: make(chan struct{})}
	for n := range l.each {
		l.work.Go(func() {
			for {
				select {
				case <-l.ending:
					return
				default:
				}
				status, body, err := try(context.Background(), clients[n/workers], http.MethodPost, "/", strings.NewReader(strings.Repeat("x", n%workers*1000)))
				if err != nil || status != 200 {
					b.t.Errorf("%d %q %v", status, body, err)
					return
				}
				l.done.Add(1)
				l.each[n].Add(1)
			}
		})
	}
	return l
}

func (l *load) stop() {
	close(l.ending)
	l.work.Wait()
}

// turn returns when all requests have ended that were under way.
func (l *load) turn(t *testing.T) {
	t.Helper()
	for n := range l.each {
		before := l.each[n].Load()
		until(t, "every worker finishes the request that it is at", func() bool { return l.each[n].Load() > before || t.Failed() })
	}
}

func drained(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, text)
	}
}

func TestEndpointChurnUnderLoad(t *testing.T) {
	for _, protocol := range []string{upstreamHTTP1, upstreamSame} {
		b := newBed(t)
		var pods []*backend
		for range 4 {
			pods = append(pods, b.backend("reviews", drained("ok")))
		}
		b.protocol = protocol
		b.apply(pods...)
		done, stop := b.load(b.client("productpage", false), b.client("productpage", true))
		for i := range 40 {
			before := done.Load()
			b.endpoints(pods[i%4], pods[(i+1)%4])
			until(t, "requests go on", func() bool { return done.Load() > before+5 || t.Failed() })
		}
		stop()
	}
}

func TestPodsThatRestartUnderLoad(t *testing.T) {
	b := newBed(t)
	stable := b.backend("reviews", drained("ok"))
	b.routes = to("," + retryPolicy + "}")
	b.apply(stable)
	l := b.startLoad(b.client("productpage", false), b.client("productpage", true))
	for range 5 {
		pod := b.backend("reviews", drained("ok"))
		b.endpoints(stable, pod)
		until(t, "the new pod serves", func() bool { return pod.requests.Load() > 10 || t.Failed() })
		// As Kubernetes does: the endpoint goes first, then the pod finishes what it has, then it ends.
		b.endpoints(stable)
		l.turn(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_ = pod.app.Shutdown(ctx)
		cancel()
		pod.end()
	}
	l.stop()
}

func TestConfigurationSwapsUnderLoad(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", drained("ok"))
	b.clusters["other"] = []*backend{pod}
	b.apply(pod)
	done, stop := b.load(b.client("productpage", false), b.client("productpage", true))
	for i := range 30 {
		before := done.Load()
		cluster := []string{service, "other"}[i%2]
		b.routes = `{"match":{"prefix":"/"},"name":"default","route":{"cluster":"` + cluster + `","timeout":"` + fmt.Sprint(10+i) + `s"}}`
		b.protocol = []string{upstreamHTTP1, upstreamHTTP2, upstreamSame}[i%3]
		b.apply(pod)
		until(t, "requests go on", func() bool { return done.Load() > before+5 || t.Failed() })
	}
	stop()
}

// TestServicesThatGoUnderLoad: clients that are connected when the service's chain and routes go are served until they leave.
func TestServicesThatGoUnderLoad(t *testing.T) {
	b := newBedWith(t, Limits{Patience: time.Minute})
	pod := b.backend("reviews", drained("ok"))
	b.apply(pod)
	full := b.cfg
	bare := b.cfg.With(l7.Update{
		Routes: map[string]*l7.Routes{service: nil}, Clusters: map[string]*l7.Cluster{service: nil}, Endpoints: map[string]*l7.Endpoints{service: nil},
		Listeners: map[string]*l7.Listener{"main_internal": compile(t, strings.ReplaceAll(b.mainInternal(), "10.96.0.1", "10.96.0.77"), &listenerv3.Listener{}, l7.CompileListener)},
	})
	done, stop := b.load(b.client("productpage", false), b.client("productpage", true))
	for range 10 {
		for _, cfg := range []*l7.Config{bare, full} {
			if err := b.server.SetConfig(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			// New connections wait for the service to come back.
			before := done.Load()
			until(t, "requests go on", func() bool { return cfg == bare || done.Load() > before+10 || t.Failed() })
		}
	}
	stop()
}

// TestTunnelsAheadOfTheConfiguration: others may hear of a service before this proxy does.
func TestTunnelsAheadOfTheConfiguration(t *testing.T) {
	for name, change := range map[string]func(full *l7.Config, b *bed) *l7.Config{
		"another service": func(full *l7.Config, b *bed) *l7.Config {
			bare := strings.ReplaceAll(b.mainInternal(), "10.96.0.1", "10.96.0.77")
			return full.With(l7.Update{Listeners: map[string]*l7.Listener{"main_internal": compile(t, bare, &listenerv3.Listener{}, l7.CompileListener)}})
		},
		"no service yet": func(full *l7.Config, _ *bed) *l7.Config {
			const none = `{"name":"main_internal","internal_listener":{},"filter_chains":[{"name":"blackhole","filters":[{"name":"tcp","typed_config":{
				"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy","stat_prefix":"blackhole","cluster":"BlackHoleCluster"}}]}]}`
			return full.With(l7.Update{Listeners: map[string]*l7.Listener{"main_internal": compile(t, none, &listenerv3.Listener{}, l7.CompileListener)}})
		},
		"no listener yet": func(full *l7.Config, _ *bed) *l7.Config {
			return full.With(l7.Update{Listeners: map[string]*l7.Listener{"main_internal": nil}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBedWith(t, Limits{Patience: time.Minute})
			pod := b.backend("reviews", say("hello"))
			b.apply(pod)
			full := b.cfg
			if err := b.server.SetConfig(t.Context(), change(full, b)); err != nil {
				t.Fatal(err)
			}
			c := b.client("productpage", false)
			result := make(chan string, 1)
			go func() {
				status, body, err := try(context.Background(), c, http.MethodGet, "/", nil)
				result <- fmt.Sprint(status, body, err)
			}()
			until(t, "the tunnel waits", func() bool { return b.server.Stats().Tunnels == 1 })
			if err := b.server.SetConfig(t.Context(), full); err != nil {
				t.Fatal(err)
			}
			if got := <-result; got != "200hello<nil>" {
				t.Error(got)
			}
		})
	}
}

// TestNodesThatRestartUnderLoad: connections inside of a tunnel whose peer says that it goes away are not used again.
func TestNodesThatRestartUnderLoad(t *testing.T) {
	for _, protocol := range []string{upstreamHTTP1, upstreamHTTP2} {
		b := newBed(t)
		b.protocol, b.breakers = protocol, `"max_retries":1000`
		stable := b.backend("reviews", drained("ok"))
		b.routes = to("," + retryPolicy + "}")
		b.apply(stable)
		l := b.startLoad(b.client("productpage", false), b.client("productpage", true))
		for range 3 {
			pod := b.backend("reviews", drained("ok"))
			b.endpoints(stable, pod)
			until(t, "the new pod serves", func() bool { return pod.requests.Load() > 20 || t.Failed() })
			close(pod.drain) // its node's proxy takes no new connections
			pod.listener.Close()
			until(t, "the proxy has heard of it", func() bool {
				before := pod.requests.Load()
				for range 5 {
					l.turn(t)
				}
				return pod.requests.Load() == before || t.Failed()
			})
			pod.end() // what it still had is cut
			b.endpoints(stable)
		}
		l.stop()
	}
}

func TestPoliciesHoldForOpenConnections(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", say("hello"))
	b.apply(pod)
	c := b.client("productpage", false)
	if status, _ := get(t, c, "/"); status != 200 {
		t.Fatal(status)
	}
	b.filters = `{"name":"envoy.filters.http.rbac","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
"rules":{"action":"DENY","policies":{"ns[default]-policy[no]-rule[0]":{"permissions":[{"any":true}],"principals":[{"any":true}]}}}}}`
	b.apply(pod)
	if status, body := get(t, c, "/"); status != 403 || body != "RBAC: access denied" {
		t.Errorf("%d %q", status, body)
	}
}

// TestPoliciesCutOpenWebSockets is for those that the request would not be let in for any more; others go on.
func TestPoliciesCutOpenWebSockets(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	b.routes = `{"match":{"prefix":"/"},"name":"default","route":{"cluster":"` + service + `","timeout":"0s","prefix_rewrite":"/rewritten"}}`
	b.apply(pod)
	open := func(path string) (*hbone.Stream, *bufio.Reader) {
		stream, _, err := b.dial("productpage").Connect(t.Context(), &hbone.Request{Authority: vip})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stream.Close() })
		fmt.Fprintf(stream, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", path, host)
		in := bufio.NewReader(stream)
		if response, err := http.ReadResponse(in, nil); err != nil || response.StatusCode != 101 {
			t.Fatalf("%+v, %v", response, err)
		}
		return stream, in
	}
	echo := func(stream io.Writer, in io.Reader) error {
		if _, err := fmt.Fprint(stream, "word"); err != nil {
			return err
		}
		_, err := io.ReadFull(in, make([]byte, 4))
		return err
	}
	denied, deniedIn := open("/denied")
	kept, keptIn := open("/kept")
	if err := errors.Join(echo(denied, deniedIn), echo(kept, keptIn)); err != nil {
		t.Fatal(err)
	}
	b.filters = `{"name":"envoy.filters.http.rbac","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
"rules":{"action":"DENY","policies":{"ns[default]-policy[no]-rule[0]":{"permissions":[{"url_path":{"path":{"prefix":"/denied"}}}],"principals":[{"any":true}]}}}}}`
	b.apply(pod)
	if _, err := io.ReadAll(deniedIn); err != nil {
		t.Log(err) // cut is cut
	}
	if r := b.records.last(t, 1); r.Details != "closed_due_to_policy_change" || !strings.Contains(r.Termination, "ns[default]-policy[no]") {
		t.Errorf("%+v", r)
	}
	if err := echo(kept, keptIn); err != nil {
		t.Errorf("one that is still let in was cut: %v", err)
	}
}

func TestPoliciesCutOpenTCPConnections(t *testing.T) {
	b := newBed(t)
	pod := b.rawBackend("reviews", func(c net.Conn) { _, _ = io.Copy(c, c) })
	b.apply(pod)
	stream, _, err := b.dial("productpage").Connect(t.Context(), &hbone.Request{Authority: tcpVIP})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	fmt.Fprint(stream, "x")
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	b.endpoints(pod) // a change that concerns it not
	fmt.Fprint(stream, "x")
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	b.network = `{"name":"envoy.filters.network.rbac","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
"stat_prefix":"tcp.","rules":{"action":"DENY","policies":{"ns[default]-policy[no]-rule[0]":{"permissions":[{"any":true}],"principals":[{"any":true}]}}}}}`
	b.apply(pod)
	if n, err := stream.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came", n)
	}
	if _, response, err := b.dial("productpage").Connect(t.Context(), &hbone.Request{Authority: tcpVIP}); err == nil || response == nil || response.Status != 401 {
		t.Errorf("a new connection: %+v, %v", response, err)
	}
}

func TestDrainWithOpenRequests(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		// Another client is to connect and ask meanwhile.
		for grace := 2 * time.Second; !drainWithAnOpenRequest(t, h2, grace); grace *= 4 {
			if grace > time.Minute {
				t.Fatal("the machine is too slow to tell anything")
			}
		}
	}
}

// drainWithAnOpenRequest tells whether the machine was fast enough for the grace.
func drainWithAnOpenRequest(t *testing.T, h2 bool, grace time.Duration) (inTime bool) {
	t.Helper()
	b := newBedWith(t, Limits{DrainGrace: grace})
	release := make(chan struct{})
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_ = http.NewResponseController(w).Flush()
			<-release
		}
		fmt.Fprint(w, "done")
	})
	b.apply(pod)
	slow := make(chan string, 1)
	c := b.client("productpage", h2)
	go func() {
		status, body, err := try(context.Background(), c, http.MethodGet, "/slow", nil)
		slow <- fmt.Sprint(status, body, err)
	}()
	until(t, "the slow request is there", func() bool { return pod.requests.Load() == 1 })
	gone := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 3*grace+time.Minute)
	defer cancel()
	start := time.Now()
	go func() { gone <- b.server.Drain(ctx) }()
	until(t, "it drains", func() bool { return b.server.Stats().Draining })
	// Others have not heard of it yet: they are still served.
	cc, err := b.tryDial("productpage")
	var status int
	var body string
	if err == nil {
		t.Cleanup(func() { cc.Close() })
		status, body, err = try(t.Context(), b.clientOver(cc, h2), http.MethodGet, "/", nil)
	}
	served := err == nil && status == 200 && body == "done"
	if late := time.Since(start) >= grace; !served && !late {
		t.Errorf("%d %q %v", status, body, err)
	}
	until(t, "nobody listens any more", func() bool {
		_, err := b.tryDial("productpage")
		return err != nil
	})
	select {
	case err := <-gone:
		t.Fatalf("the drain ended before the request: %v", err)
	default:
	}
	close(release)
	if got := <-slow; got != "200done<nil>" {
		t.Errorf("the slow request: %s", got)
	}
	if err := <-gone; err != nil {
		t.Errorf("drain: %v", err)
	}
	return served || t.Failed()
}

func TestDrainIsCutShort(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b.apply(pod)
	result := make(chan error, 1)
	go func() {
		_, _, err := try(context.Background(), b.client("productpage", false), http.MethodGet, "/", nil)
		result <- err
	}()
	until(t, "the request is there", func() bool { return pod.requests.Load() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := b.server.Drain(ctx); err == nil {
		t.Error("nothing was cut")
	}
	if err := <-result; err == nil {
		t.Error("the request was answered")
	}
}
