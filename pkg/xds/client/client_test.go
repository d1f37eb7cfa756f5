package client

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

const (
	addressType = "type.googleapis.com/istio.workload.Address"
	policyType  = "type.googleapis.com/istio.security.Authorization"
)

// fakeServer is a transport on channels, so that time can be virtual.
type fakeServer struct {
	requests  chan *discovery.DeltaDiscoveryRequest
	responses chan any // *DeltaDiscoveryResponse or error
	closed    chan struct{}
	once      sync.Once
}

func newFakeServer() *fakeServer {
	return &fakeServer{make(chan *discovery.DeltaDiscoveryRequest, 100), make(chan any, 100), make(chan struct{}), sync.Once{}}
}

func (f *fakeServer) Send(r *discovery.DeltaDiscoveryRequest) error { f.requests <- r; return nil }
func (f *fakeServer) Close()                                        { f.once.Do(func() { close(f.closed) }) }

func (f *fakeServer) Recv() (*discovery.DeltaDiscoveryResponse, int, error) {
	select {
	case m := <-f.responses:
		if err, ok := m.(error); ok {
			return nil, 0, err
		}
		return m.(*discovery.DeltaDiscoveryResponse), 1, nil
	case <-f.closed:
		return nil, 0, context.Canceled
	}
}

// recorder is a handler that rejects the names it is told to.
type recorder struct {
	mu      sync.Mutex
	bad     []string
	updated []string
	removed []string
}

func (r *recorder) Apply(updated []Resource, removed []string) (rejected []Rejected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range updated {
		if slices.Contains(r.bad, u.Name) {
			rejected = append(rejected, Rejected{Name: u.Name, Reason: "unusable"})
			continue
		}
		r.updated = append(r.updated, u.Name)
	}
	r.removed = append(r.removed, removed...)
	return rejected
}

func response(typeURL, nonce string, names ...string) *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: nonce}
	for _, n := range names {
		r.Resources = append(r.Resources, &discovery.Resource{Name: n, Version: "v-" + n, Resource: &anypb.Any{TypeUrl: typeURL}})
	}
	return r
}

func watches(address, policy Handler) []Watch {
	return []Watch{{TypeURL: addressType, Handler: address}, {TypeURL: policyType, Handler: policy}}
}

func start(t *testing.T, c *Client) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// The waits between failing dials double from 20 ms to 15 s; a stream that had been of use and ends in EOF is dialled again at
// once, one that ends in a quick class after 10 ms.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Node: &corev3.Node{Id: "n"}, Types: watches(&recorder{}, &recorder{})})
		var mu sync.Mutex // for what the client's goroutine and the test both touch
		var dials []time.Time
		var servers []*fakeServer
		var up atomic.Bool
		c.connect = func(context.Context) (transport, error) {
			mu.Lock()
			defer mu.Unlock()
			dials = append(dials, time.Now())
			if !up.Load() {
				return nil, errors.New("refused")
			}
			f := newFakeServer()
			servers = append(servers, f)
			return f, nil
		}
		start(t, c)
		begin := time.Now()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		mu.Lock()
		want := []time.Duration{0, 20, 60, 140, 300, 620, 1260, 2540, 5100, 10220, 20460, 35460}
		for i, w := range want {
			if got := dials[i].Sub(begin); got != w*time.Millisecond {
				t.Errorf("dial %d after %v, want %v", i, got, w*time.Millisecond)
			}
		}
		mu.Unlock()
		up.Store(true)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		for _, end := range []struct {
			err  error
			wait time.Duration
		}{
			{io.EOF, 0},
			{status.Error(codes.Unknown, "x"), 10 * time.Millisecond},
			{status.Error(codes.Unavailable, "closing transport due to: connection error, received prior goaway: code: NO_ERROR"), 10 * time.Millisecond},
			{status.Error(codes.Unavailable, "no route"), 20 * time.Millisecond},
		} {
			mu.Lock()
			f := servers[len(servers)-1]
			mu.Unlock()
			f.responses <- response(addressType, "1")
			synctest.Wait()
			ended := time.Now()
			f.responses <- end.err
			time.Sleep(time.Second)
			synctest.Wait()
			mu.Lock()
			if got := dials[len(dials)-1].Sub(ended); got != end.wait {
				t.Errorf("after %v: dialled again after %v, want %v", end.err, got, end.wait)
			}
			mu.Unlock()
		}
	})
}

// A rejected resource is refused by name, the rest applies, and a reconnect names what is in use, without the rejected.
func TestNackAndReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		address := &recorder{bad: []string{"b"}}
		c := New(Config{Node: &corev3.Node{Id: "n"}, Types: watches(address, &recorder{})})
		servers := make(chan *fakeServer, 10)
		c.connect = func(context.Context) (transport, error) { f := newFakeServer(); servers <- f; return f, nil }
		start(t, c)
		f := <-servers
		for _, typ := range []string{addressType, policyType} {
			r := <-f.requests
			if r.GetTypeUrl() != typ || r.GetNode().GetId() != "n" || len(r.GetInitialResourceVersions()) != 0 {
				t.Errorf("first request of %s: %v", typ, r)
			}
		}
		f.responses <- response(addressType, "1", "a", "b", "c")
		nack := <-f.requests
		if nack.GetResponseNonce() != "1" || nack.GetErrorDetail().GetMessage() != "b: unusable" || nack.GetErrorDetail().GetCode() != 0 {
			t.Errorf("nack: %v", nack)
		}
		if !slices.Equal(address.updated, []string{"a", "c"}) {
			t.Errorf("applied %v", address.updated)
		}
		select {
		case <-c.Synced():
			t.Error("synced before the second type was answered")
		default:
		}
		f.responses <- response(policyType, "2")
		if ack := <-f.requests; ack.GetErrorDetail() != nil || ack.GetResponseNonce() != "2" || ack.GetTypeUrl() != policyType {
			t.Errorf("ack: %v", ack)
		}
		<-c.Synced()
		f.responses <- io.EOF
		r := <-(<-servers).requests
		if v := r.GetInitialResourceVersions(); len(v) != 2 || v["a"] != "v-a" || v["c"] != "v-c" {
			t.Errorf("initial versions: %v", v)
		}
	})
}

func TestDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Types: []Watch{{TypeURL: addressType, Handler: &recorder{}, OnDemand: true}}})
		servers := make(chan *fakeServer, 10)
		c.connect = func(context.Context) (transport, error) { f := newFakeServer(); servers <- f; return f, nil }
		start(t, c)
		f := <-servers
		if r := <-f.requests; !slices.Equal(r.GetResourceNamesSubscribe(), []string{"*"}) || !slices.Equal(r.GetResourceNamesUnsubscribe(), []string{"*"}) {
			t.Errorf("first request: %v", r)
		}
		results := make(chan error, 3)
		ask := func(name string) { go func() { results <- c.Demand(t.Context(), addressType, name) }() }
		ask("/10.0.0.1")
		synctest.Wait()
		if r := <-f.requests; !slices.Equal(r.GetResourceNamesSubscribe(), []string{"/10.0.0.1"}) || r.GetResponseNonce() != "" {
			t.Errorf("demand: %v", r)
		}
		hit := response(addressType, "1", "pod")
		hit.Resources[0].Aliases = []string{"/10.0.0.1"}
		f.responses <- hit
		if err := <-results; err != nil {
			t.Error(err)
		}
		if err := c.Demand(t.Context(), addressType, "/10.0.0.1"); err != nil {
			t.Errorf("known: %v", err)
		}
		<-f.requests // ack
		ask("/10.0.0.2")
		synctest.Wait()
		<-f.requests
		f.responses <- io.EOF // unanswered: the next connection carries it
		f = <-servers
		if v := (<-f.requests).GetInitialResourceVersions(); len(v) != 2 || v["pod"] != "v-pod" || v["/10.0.0.2"] != "" {
			t.Errorf("initial versions: %v", v)
		}
		f.responses <- &discovery.DeltaDiscoveryResponse{TypeUrl: addressType, Nonce: "1", RemovedResources: []string{"/10.0.0.2"}}
		if err := <-results; err != nil {
			t.Errorf("miss: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Demand(ctx, addressType, "never"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("unanswered: %v", err)
		}
		if err := c.Demand(ctx, policyType, "x"); err == nil {
			t.Error("a type that is not watched on demand was accepted")
		}
	})
}
