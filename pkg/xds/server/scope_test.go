package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

const (
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// byNode puts each client into the scope that its node's cluster names, and notes what is opened and closed.
type byNode struct {
	mu   sync.Mutex
	log  []string
	open func(scope string)
}

func (b *byNode) ScopeOf(node *corev3.Node, _ server.Peer, typeURL string) string {
	if typeURL == addressType {
		return ""
	}
	return node.GetCluster()
}

func (b *byNode) Open(scope string) {
	b.note("open " + scope)
	if b.open != nil {
		b.open(scope)
	}
}

func (b *byNode) Close(scope string) { b.note("close " + scope) }

// opened waits until a client is in the scope: before, nothing can be published to it.
func (b *byNode) opened(t *testing.T, scope string) {
	t.Helper()
	eventually(t, scope+" is open", func() bool { return slices.Contains(strings.Split(b.noted(), ", "), "open "+scope) })
}

func (b *byNode) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, s)
}

func (b *byNode) noted() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.log, ", ")
}

func scopedNode(scope string) *corev3.Node {
	return &corev3.Node{Id: "waypoint~10.0.0.1~wp.shop~shop.svc.cluster.local", Cluster: scope}
}

func of(typeURL string, names ...string) server.Update {
	u := server.Update{TypeURL: typeURL}
	for _, n := range names {
		if gone, ok := strings.CutPrefix(n, "-"); ok {
			u.Removed = append(u.Removed, gone)
			continue
		}
		name, version, _ := strings.Cut(n, "@")
		u.Changed = append(u.Changed, server.Resource{Name: name, Version: version, Any: &anypb.Any{TypeUrl: typeURL, Value: []byte(n)}})
	}
	return u
}

func short(typeURL string) string {
	return map[string]string{clusterType: "cds", endpointType: "eds", listenerType: "lds", routeType: "rds", addressType: "wds"}[typeURL]
}

// deltaPeer is a client that tells what it gets, one line per response.
type deltaPeer struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    chan string
	leave  func()
}

func newDeltaPeer(t *testing.T, addr, scope string) *deltaPeer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := dial(t, addr).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &deltaPeer{t, stream, make(chan string, 100), cancel}
	p.send(&discovery.DeltaDiscoveryRequest{Node: scopedNode(scope), TypeUrl: clusterType})
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			var parts []string
			for _, res := range r.GetResources() {
				parts = append(parts, string(res.GetResource().GetValue()))
			}
			for _, name := range r.GetRemovedResources() {
				parts = append(parts, "-"+name)
			}
			p.got <- short(r.GetTypeUrl()) + ": " + strings.Join(parts, " ")
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		}
	}()
	return p
}

func (p *deltaPeer) send(r *discovery.DeltaDiscoveryRequest) {
	p.t.Helper()
	if err := p.stream.Send(r); err != nil {
		p.t.Fatal(err)
	}
}

func expectLines(t *testing.T, got <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case g := <-got:
			if g != w {
				t.Fatalf("got %q, want %q", g, w)
			}
		case <-time.After(deadline):
			t.Fatalf("never: %q", w)
		}
	}
}

func silent(t *testing.T, got <-chan string) {
	t.Helper()
	select {
	case g := <-got:
		t.Fatalf("got %q, want nothing", g)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestScopes(t *testing.T) {
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	a, b := newDeltaPeer(t, addr, "a"), newDeltaPeer(t, addr, "b")
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: endpointType, ResourceNamesSubscribe: []string{"c1"}})
	// Nobody takes a scope without resources for an empty configuration.
	silent(t, a.got)
	eventually(t, "both are open", func() bool { return len(by.noted()) == len("open a, open b") })
	s.PublishScope("a", of(clusterType, "c1@1"), of(endpointType, "c1@1", "c2@1"), of(listenerType, "l1@1"))
	expectLines(t, a.got, "cds: c1@1", "eds: c1@1")
	silent(t, b.got)
	s.PublishScope("b", of(clusterType, "other@1"))
	expectLines(t, b.got, "cds: other@1")
	silent(t, a.got)
	// What is for everybody is so for clients in scopes, too.
	s.Publish(addressType, []server.Resource{resource("w", "1")}, nil)
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: addressType})
	expectLines(t, a.got, "wds: w@1")
	// A scope without clients is not published to.
	s.PublishScope("nobody", of(clusterType, "c@1"))
	// A second client gets the same, and the scope is closed when both have gone.
	again := newDeltaPeer(t, addr, "a")
	expectLines(t, again.got, "cds: c1@1")
	for _, p := range []*deltaPeer{a, again, b} {
		p.leave()
	}
	eventually(t, "all are closed", func() bool {
		n := by.noted()
		return strings.Contains(n, "close a") && strings.Contains(n, "close b") && strings.Count(n, "open") == 2
	})
	// It starts anew.
	a = newDeltaPeer(t, addr, "a")
	silent(t, a.got)
	s.PublishScope("a", of(clusterType, "c9@1"))
	expectLines(t, a.got, "cds: c9@1")
}

// Open may publish at once.
func TestOpenPublishes(t *testing.T) {
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	by.open = func(scope string) { s.PublishScope(scope, of(clusterType, "c@1")) }
	expectLines(t, newDeltaPeer(t, addr, "a").got, "cds: c@1")
}

// In one push clusters come first and go last, and what refers to them is in between.
func TestMakeBeforeBreak(t *testing.T) {
	var moving atomic.Bool // the clock by which it is not waited for ever
	start := time.Now()
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by, Now: func() time.Time {
		if moving.Load() {
			return time.Now()
		}
		return start
	}})
	p := newDeltaPeer(t, addr, "a")
	for typeURL, names := range map[string][]string{endpointType: {"c1", "c2"}, listenerType: nil, routeType: {"r"}} {
		p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
	}
	by.opened(t, "a")
	s.PublishScope("a", of(routeType, "r@1"), of(listenerType, "l@1"), of(endpointType, "c1@1"), of(clusterType, "c1@1"))
	var first []string
	for range 4 {
		select {
		case g := <-p.got:
			first = append(first, g)
		case <-time.After(deadline):
			t.Fatal(first)
		}
	}
	eventually(t, "all is answered and acknowledged", func() bool {
		types := s.Clients()[0].Types
		return len(types) == 4 && !slices.ContainsFunc(types, func(c server.TypeStatus) bool { return c.Sent == "" || c.Sent != c.Acked })
	})
	for len(p.got) > 0 {
		<-p.got
	}
	// A cluster that is new to the client holds up what refers to it until the client has asked for its endpoints, but for others
	// there is no waiting.
	s.PublishScope("a", of(routeType, "r@9"), of(endpointType, "c3@1"), of(clusterType, "c3@1", "c4@1"))
	expectLines(t, p.got, "cds: c3@1 c4@1")
	silent(t, p.got)
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: endpointType, ResourceNamesSubscribe: []string{"c3"}})
	expectLines(t, p.got, "eds: c3@1", "rds: r@9")
	moving.Store(true)
	s.PublishScope("a", of(routeType, "r@10"), of(endpointType, "c5@1"), of(clusterType, "c5@1"))
	expectLines(t, p.got, "cds: c5@1", "rds: r@10") // it never asks, so it does not wait for long
	s.PublishScope("a", of(routeType, "r@2"), of(listenerType, "l@2"), of(endpointType, "c2@1", "-c1"), of(clusterType, "c2@1", "-c1"))
	expectLines(t, p.got, "cds: c2@1", "eds: c2@1", "lds: l@2", "rds: r@2", "cds: -c1", "eds: -c1")
}

// A push that begins while something is published takes all of that or nothing: never routes without the clusters that came with them.
func TestPublicationsAreSeenWhole(t *testing.T) {
	const last = 1000
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	p := newDeltaPeer(t, addr, "a")
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: routeType, ResourceNamesSubscribe: []string{"r"}})
	q := newSotwPeer(t, addr, "a")
	q.ask(routeType, "r")
	by.opened(t, "a")
	s.PublishScope("a", of(routeType, "r@0"), of(clusterType, "c@0"))
	for _, got := range []<-chan string{p.got, q.got} {
		for line := ""; line != "rds: r@0"; {
			select {
			case line = <-got:
			case <-time.After(deadline):
				t.Fatal("no routes")
			}
		}
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := 1; i <= last; i++ {
			s.PublishScope("a", of(routeType, fmt.Sprint("r@", i)), of(clusterType, fmt.Sprint("c@", i)))
		}
	}()
	for _, got := range []<-chan string{p.got, q.got} {
		cluster, route := 0, 0
		for route < last {
			select {
			case g := <-got:
				if _, err := fmt.Sscanf(g, "cds: c@%d", &cluster); err == nil {
					continue
				}
				if _, err := fmt.Sscanf(g, "rds: r@%d", &route); err != nil || route > cluster {
					t.Fatalf("%q while the clusters were those of publication %d", g, cluster)
				}
			case <-time.After(deadline):
				t.Fatalf("nothing after %d", route)
			}
		}
	}
	<-published
}

// Endpoints come after their cluster whenever that is sent, also if the client has them: it waits for them all the same.
func TestEndpointsFollowClusters(t *testing.T) {
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	p := newDeltaPeer(t, addr, "a")
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: endpointType, ResourceNamesSubscribe: []string{"c1", "c2"}})
	by.opened(t, "a")
	s.PublishScope("a", of(clusterType, "c1@1", "c2@1"), of(endpointType, "c1@1", "c2@1", "c3@1"))
	expectLines(t, p.got, "cds: c1@1 c2@1", "eds: c1@1 c2@1")
	s.PublishScope("a", of(clusterType, "c2@2", "c3@1"))
	expectLines(t, p.got, "cds: c2@2 c3@1", "eds: c2@1")
	s.PublishScope("a", of(clusterType, "c1@2", "c2@3"), of(endpointType, "c1@2"))
	expectLines(t, p.got, "cds: c1@2 c2@3", "eds: c1@2", "eds: c2@1")
	silent(t, p.got)
	// So it is for one that comes back with older clusters and the newest endpoints.
	p.leave()
	eventually(t, "it is gone", func() bool { return len(s.Clients()) == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	stream, err := dial(t, addr).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*discovery.DeltaDiscoveryRequest{
		{Node: scopedNode("b"), TypeUrl: clusterType, InitialResourceVersions: map[string]string{"c1": "1", "c2": "3"}},
		{TypeUrl: endpointType, ResourceNamesSubscribe: []string{"c1", "c2"}, InitialResourceVersions: map[string]string{"c1": "2", "c2": "1"}},
	} {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	by.opened(t, "b")
	s.PublishScope("b", of(clusterType, "c1@2", "c2@3"), of(endpointType, "c1@2", "c2@1"))
	// The subscription itself is answered with nothing, in an answer of its own or in that of the endpoints, as it happens to arrive.
	var got []string
	for len(got) < 2 {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		for _, res := range r.GetResources() {
			got = append(got, short(r.GetTypeUrl())+": "+string(res.GetResource().GetValue()))
		}
	}
	if want := []string{"cds: c1@2", "eds: c1@2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a scope was made for goes: clients keep what they have. When it is back they get the difference.
func TestWithdrawnScope(t *testing.T) {
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	p := newDeltaPeer(t, addr, "a")
	by.opened(t, "a")
	s.PublishScope("a", of(clusterType, "c1@1", "c2@1", "c3@1"))
	expectLines(t, p.got, "cds: c1@1 c2@1 c3@1")
	s.WithdrawScope("a")
	silent(t, p.got)
	s.PublishScope("a", of(clusterType, "c1@1", "c2@2"))
	expectLines(t, p.got, "cds: c2@2", "cds: -c3")
}

// sotwPeer is a state-of-the-world client that tells what it gets and acknowledges it with the names that it wants.
type sotwPeer struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	got    chan string
	mu     sync.Mutex
	names  map[string][]string
	nonces map[string]string
	refuse string // a type
}

func newSotwPeer(t *testing.T, addr, scope string) *sotwPeer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := dial(t, addr).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &sotwPeer{t: t, stream: stream, got: make(chan string, 100), names: map[string][]string{}, nonces: map[string]string{}}
	p.want(clusterType)
	if err := stream.Send(&discovery.DiscoveryRequest{Node: scopedNode(scope), TypeUrl: clusterType}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			var parts []string
			for _, res := range r.GetResources() {
				parts = append(parts, string(res.GetValue()))
			}
			slices.Sort(parts)
			p.mu.Lock()
			p.nonces[r.GetTypeUrl()] = r.GetNonce()
			ack := &discovery.DiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo(), ResourceNames: p.names[r.GetTypeUrl()]}
			if r.GetTypeUrl() == p.refuse {
				ack.ErrorDetail = &statuspb.Status{Message: "no"}
			}
			p.mu.Unlock()
			_ = stream.Send(ack)
			p.got <- short(r.GetTypeUrl()) + ": " + strings.Join(parts, " ")
		}
	}()
	return p
}

// want changes what is asked for.
func (p *sotwPeer) want(typeURL string, names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names[typeURL] = names
}

func (p *sotwPeer) ask(typeURL string, names ...string) {
	p.t.Helper()
	p.want(typeURL, names...)
	p.mu.Lock()
	r := &discovery.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names, ResponseNonce: p.nonces[typeURL]}
	p.mu.Unlock()
	if err := p.stream.Send(r); err != nil {
		p.t.Fatal(err)
	}
}

func TestStateOfTheWorldInScope(t *testing.T) {
	reg := prometheus.NewRegistry()
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by, Metrics: server.NewMetrics(reg), ControlPlane: &corev3.ControlPlane{Identifier: "test"}})
	p := newSotwPeer(t, addr, "a")
	by.opened(t, "a")
	silent(t, p.got)
	s.PublishScope("a", of(clusterType, "c1@1", "c2@1"), of(endpointType, "c1@1", "c2@1", "c3@1"), of(listenerType, "l@1"), of(routeType, "r@1"))
	expectLines(t, p.got, "cds: c1@1 c2@1")
	p.ask(endpointType, "c1", "c2")
	expectLines(t, p.got, "eds: c1@1 c2@1")
	p.ask(listenerType)
	expectLines(t, p.got, "lds: l@1")
	p.ask(routeType, "r")
	expectLines(t, p.got, "rds: r@1")

	// Of endpoints and routes only what has changed is sent, of clusters and listeners all.
	s.PublishScope("a", of(endpointType, "c1@2"), of(routeType, "unused@1"))
	expectLines(t, p.got, "eds: c1@2")
	s.PublishScope("a", of(clusterType, "c2@2"))
	expectLines(t, p.got, "cds: c1@1 c2@2", "eds: c2@1") // a cluster that is new to a client waits for endpoints
	silent(t, p.got)

	// A name that is added brings its resource, and nothing that is there already.
	p.ask(endpointType, "c1", "c2", "c3")
	expectLines(t, p.got, "eds: c3@1")

	// Clusters go after what refers to them.
	s.PublishScope("a", of(clusterType, "c4@1", "-c1"), of(routeType, "r@2"))
	expectLines(t, p.got, "cds: c1@1 c2@2 c4@1", "rds: r@2", "cds: c2@2 c4@1")

	p.mu.Lock()
	p.refuse = routeType
	p.mu.Unlock()
	s.PublishScope("a", of(routeType, "r@3"))
	expectLines(t, p.got, "rds: r@3")
	eventually(t, "the refusal is counted", func() bool {
		want := fmt.Sprintf("# HELP pilot_xds_rds_reject Pilot rejected rds configs.\n# TYPE pilot_xds_rds_reject counter\npilot_xds_rds_reject{node=%q} 1\n", scopedNode("a").GetId())
		return testutil.GatherAndCompare(reg, strings.NewReader(want), "pilot_xds_rds_reject") == nil
	})
	status := s.Clients()[0].Types
	if len(status) != 4 {
		t.Errorf("status of %d types: %v", len(status), status)
	}
}

func TestStateOfTheWorldWaitsForNamedResources(t *testing.T) {
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	p := newSotwPeer(t, addr, "a")
	by.opened(t, "a")
	s.PublishScope("a", of(clusterType, "c@1"))
	expectLines(t, p.got, "cds: c@1")
	p.ask(routeType, "r") // does not exist: an empty answer would be taken for an empty configuration
	silent(t, p.got)
	s.PublishScope("a", of(routeType, "r@1"))
	expectLines(t, p.got, "rds: r@1")
}

// A client that comes back while its scope is being published for the first time is never told that what it has is gone.
func TestNoScopeServesBeforeItIsWhole(t *testing.T) {
	by := &byNode{}
	s, addr := serve(t, server.Config{Scopes: by})
	many := make([]string, 3000)
	for i := range many {
		many[i] = fmt.Sprintf("c%d@1", i)
	}
	client := dial(t, addr)
	for round := range 30 {
		scope := fmt.Sprintf("s%d", round)
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		stream, err := client.DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(r *discovery.DeltaDiscoveryRequest) {
			if err := stream.Send(r); err != nil {
				t.Error(err)
			}
		}
		ask(&discovery.DeltaDiscoveryRequest{Node: scopedNode(scope), TypeUrl: clusterType, InitialResourceVersions: map[string]string{"c1": "1"}})
		by.opened(t, scope)
		published := make(chan struct{})
		go func() {
			defer close(published)
			s.PublishScope(scope, of(clusterType, many...), of(endpointType, "c1@1"))
		}()
		ask(&discovery.DeltaDiscoveryRequest{TypeUrl: endpointType, ResourceNamesSubscribe: []string{"c1"}, InitialResourceVersions: map[string]string{"c1": "1"}})
		for answered := false; !answered; {
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if gone := r.GetRemovedResources(); len(gone) > 0 {
				t.Fatalf("round %d: %s are said to be gone: %q", round, short(r.GetTypeUrl()), gone)
			}
			answered = r.GetTypeUrl() == endpointType
		}
		<-published
		cancel()
		eventually(t, "it is gone", func() bool { return len(s.Clients()) == 0 })
	}
}
