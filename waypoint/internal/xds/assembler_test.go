package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// fakeCompilers make tables of the names alone: the stat prefix of a listener is its routes with commas; "bad" does not compile.
func fakeCompilers() compilers {
	bad := errors.New("field x: not supported")
	return compilers{
		listener: func(p *listenerv3.Listener) (*l7.Listener, error) {
			out := &l7.Listener{Name: p.GetName()}
			for name := range strings.SplitSeq(p.GetStatPrefix(), ",") {
				if name == "bad" {
					return nil, bad
				}
				if name != "" {
					out.Chains = append(out.Chains, &l7.Chain{HTTP: &l7.HTTPManager{RouteConfig: name}})
				}
			}
			return out, nil
		},
		cluster: func(p *clusterv3.Cluster) (*l7.Cluster, error) {
			if p.GetAltStatName() == "bad" {
				return nil, bad
			}
			out := &l7.Cluster{Name: p.GetName(), StatName: p.GetAltStatName()}
			if p.GetType() == clusterv3.Cluster_EDS {
				out.Discovery, out.EDSName = l7.DiscoveryEDS, p.GetName()
			}
			return out, nil
		},
		routes: func(p *routev3.RouteConfiguration) (*l7.Routes, error) {
			if len(p.GetVirtualHosts()) > 0 && p.GetVirtualHosts()[0].GetName() == "bad" {
				return nil, bad
			}
			return &l7.Routes{Name: p.GetName()}, nil
		},
		endpoints: func(p *endpointv3.ClusterLoadAssignment) (*l7.Endpoints, error) {
			return &l7.Endpoints{Cluster: p.GetClusterName()}, nil
		},
	}
}

// bench is an Assembler whose sink and subscriptions are recorded.
type bench struct {
	*Assembler
	configs    []*l7.Config
	subscribed map[string]map[string]bool
	refuse     error
}

func newBench(t *testing.T) *bench {
	b := &bench{subscribed: map[string]map[string]bool{RouteType: {}, EndpointType: {}, SecretType: {}}}
	b.Assembler = NewAssembler(func(_ context.Context, c *l7.Config) error {
		b.configs = append(b.configs, c)
		return b.refuse
	}, func(typeURL string, add, remove []string) {
		for _, name := range add {
			b.subscribed[typeURL][name] = true
		}
		for _, name := range remove {
			delete(b.subscribed[typeURL], name)
		}
	}, nil)
	b.compile = fakeCompilers()
	t.Cleanup(b.Close)
	return b
}

// step is one response of the server: "C+a" is a cluster with endpoints, "Ca" one without, "L+x:r1,r2" … see resource.
func (b *bench) step(t *testing.T, items ...string) (rejected []string) {
	t.Helper()
	updated, removed := map[byte][]client.Resource{}, map[byte][]string{}
	for _, item := range items {
		kind, rest := item[0], item[1:]
		if name, ok := strings.CutPrefix(rest, "-"); ok {
			removed[kind] = append(removed[kind], name)
			continue
		}
		updated[kind] = append(updated[kind], resource(t, kind, rest))
	}
	for _, kind := range []byte("CELR") {
		if len(updated[kind])+len(removed[kind]) == 0 && !slices.Contains(items, string(kind)) {
			continue
		}
		if len(updated[kind]) > 0 && updated[kind][0].Name == "" {
			updated[kind] = nil // an empty response
		}
		apply := map[byte]func([]client.Resource, []string) []client.Rejected{
			'C': b.applyClusters, 'E': b.applyEndpoints, 'L': b.applyListeners, 'R': b.applyRoutes,
		}[kind]
		for _, r := range apply(updated[kind], removed[kind]) {
			rejected = append(rejected, r.Name+": "+r.Reason)
		}
	}
	return rejected
}

// resource makes one of "name:detail@version".
func resource(t *testing.T, kind byte, text string) client.Resource {
	text, version, _ := strings.Cut(text, "@")
	name, detail, _ := strings.Cut(text, ":")
	var m proto.Message
	switch kind {
	case 'C':
		c := &clusterv3.Cluster{Name: name, AltStatName: detail, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}}
		if detail == "static" {
			c.ClusterDiscoveryType = nil
		}
		m = c
	case 'E':
		m = &endpointv3.ClusterLoadAssignment{ClusterName: name}
	case 'L':
		m = &listenerv3.Listener{Name: name, StatPrefix: detail}
	case 'R':
		host := &routev3.VirtualHost{Name: detail}
		for cluster := range strings.SplitSeq(detail, ",") {
			host.Routes = append(host.Routes, &routev3.Route{Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			}}})
		}
		m = &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{host}}
	}
	content, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource{Name: name, Version: version, Any: content}
}

// last describes the newest configuration: "L:a R:b C:c E:d".
func (b *bench) last() string {
	b.Assembler.mu.Lock()
	defer b.Assembler.mu.Unlock()
	if len(b.configs) == 0 {
		return "none"
	}
	c := b.configs[len(b.configs)-1]
	names := func(keys []string) string { slices.Sort(keys); return strings.Join(keys, ",") }
	return fmt.Sprintf("L:%s R:%s C:%s E:%s", names(slices.Collect(maps.Keys(c.Listeners))), names(slices.Collect(maps.Keys(c.Routes))),
		names(slices.Collect(maps.Keys(c.Clusters))), names(slices.Collect(maps.Keys(c.Endpoints))))
}

func (b *bench) expect(t *testing.T, config string, subscribed string) {
	t.Helper()
	if got := b.last(); got != config {
		t.Errorf("configuration %q, want %q", got, config)
	}
	if got := strings.Join(append(slices.Sorted(maps.Keys(b.subscribed[EndpointType])), slices.Sorted(maps.Keys(b.subscribed[RouteType]))...), ","); got != subscribed {
		t.Errorf("subscribed to %q, want %q", got, subscribed)
	}
}

// The first configuration is whole: nothing serves before routes and endpoints have come.
func TestFirstConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca", "Cs:static")
		b.expect(t, "none", "a")
		b.step(t, "Lx:r1,r2")
		b.expect(t, "none", "a,r1,r2")
		b.step(t, "Rr1", "Ea")
		b.expect(t, "none", "a,r1,r2")
		select {
		case <-b.Ready():
			t.Error("ready before all was there")
		default:
		}
		b.step(t, "Rr2")
		b.expect(t, "L:x R:r1,r2 C:a,s E:a", "a,r1,r2")
		<-b.Ready()
		if len(b.configs) != 1 {
			t.Errorf("%d configurations, want 1", len(b.configs))
		}
	})
}

func TestAnEmptyConfigurationIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "C", "L")
		b.expect(t, "L: R: C: E:", "")
		<-b.Ready()
	})
}

// A listener brings the policies of all its services: they are not held up for long by the routes of one that do not come.
func TestAChangedListenerWaitsNotWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "C", "Lx:r1")
		b.step(t, "Rr1")
		b.step(t, "Lx:r1,r2@2")
		time.Sleep(initialFetch / 2)
		b.step(t, "Lx:r1,r2,r3@3")
		chains := func() int {
			b.Assembler.mu.Lock()
			defer b.Assembler.mu.Unlock()
			return len(b.configs[len(b.configs)-1].Listeners["x"].Chains)
		}
		if n := chains(); n != 1 {
			t.Errorf("%d chains serve while their routes may come, want 1", n)
		}
		time.Sleep(initialFetch + time.Millisecond)
		synctest.Wait()
		if n := chains(); n != 3 {
			t.Errorf("%d chains serve, want 3", n)
		}
		b.expect(t, "L:x R:r1 C: E:", "r1,r2,r3")
	})
}

// What the server never sends is not waited for without end; what it says it does not have is not waited for at all.
func TestMissingResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca", "Cs:static", "Lx:r1", "Ly")
		b.expect(t, "none", "a,r1")
		time.Sleep(initialFetch + time.Millisecond)
		synctest.Wait()
		b.expect(t, "L:y R: C:s E:", "a,r1")
		b.step(t, "R-r1", "E-a")
		b.expect(t, "L:x,y R: C:a,s E:", "a,r1")
		b.step(t, "Rr1", "Ea")
		b.expect(t, "L:x,y R:r1 C:a,s E:a", "a,r1")
	})
}

// A version that does not compile is refused by name, and the last good one serves.
func TestRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca:one@1", "Ea", "Lx:r1@1", "Rr1@1")
		before := b.configs[0]
		got := b.step(t, "Ca:bad@2", "Lx:r1,bad@2", "Rr1:bad@2", "Lz:bad@1")
		want := []string{"a: field x: not supported", "x: field x: not supported", "z: field x: not supported", "r1: field x: not supported"}
		if !slices.Equal(got, want) {
			t.Errorf("rejected %q, want %q", got, want)
		}
		after := b.configs[len(b.configs)-1]
		if after.Listeners["x"] != before.Listeners["x"] || after.Clusters["a"] != before.Clusters["a"] || after.Routes["r1"] != before.Routes["r1"] {
			t.Error("a refused version changed what serves")
		}
		s := b.Snapshot()
		for _, r := range []Resource{s.Listeners[0], s.Clusters[0], s.Routes[0]} {
			if r.Active == nil || r.Active.Version != "1" || r.Failure == nil || r.Failure.Version != "2" || r.Failure.Details != "field x: not supported" {
				t.Errorf("%s: %+v", r.Name, r)
			}
		}
		if z := s.Listeners[1]; z.Name != "z" || z.Active != nil || z.Failure == nil {
			t.Errorf("%+v", z)
		}
		if c := s.Counts[ListenerType]; c != (Counts{Success: 1, Rejected: 2, Active: 1}) {
			t.Errorf("counts %+v", c)
		}
		b.step(t, "Rr1@3")
		if f := b.Snapshot().Routes[0].Failure; f != nil {
			t.Errorf("a good version leaves the failure %+v", f)
		}
	})
}

// A bad route among many keeps only itself from serving.
func TestARejectedRouteIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "C", "Lx:r1,r2", "Rr1:bad", "Rr2")
		b.expect(t, "L:x R:r2 C: E:", "r1,r2")
		b.step(t, "Rr1")
		b.expect(t, "L:x R:r1,r2 C: E:", "r1,r2")
	})
}

// A proxy whose listener was refused from the start is not ready until there is a good one, or none.
func TestNotReadyWithoutAListener(t *testing.T) {
	for _, cure := range []string{"Lx", "L-x"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.step(t, "C", "Lx:bad", "Ly")
			b.expect(t, "L:y R: C: E:", "")
			select {
			case <-b.Ready():
				t.Error("ready without a listener")
			default:
			}
			b.step(t, cure)
			<-b.Ready()
		})
	}
}

// A change waits for what is new in it; the old version serves meanwhile.
func TestWarming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca:one", "Ea", "Lx:r1", "Rr1")
		first := b.configs[0]
		b.step(t, "Lx:r1,r2")
		if b.configs[len(b.configs)-1].Listeners["x"] != first.Listeners["x"] {
			t.Error("a listener serves without its routes")
		}
		if s := b.Snapshot(); s.Listeners[0].Warming == nil {
			t.Error("no warming listener is shown")
		}
		b.step(t, "Lx:r3") // another version overtakes
		b.expect(t, "L:x R:r1 C:a E:a", "a,r1,r3")
		b.step(t, "Rr2", "Rr3")
		b.expect(t, "L:x R:r3 C:a E:a", "a,r3")
		b.step(t, "Ca:two")
		if got := b.configs[len(b.configs)-1].Clusters["a"].StatName; got != "two" {
			t.Errorf("a cluster whose endpoints are known waits: %q", got)
		}
		b.step(t, "L-x", "C-a")
		b.expect(t, "L: R: C: E:", "")
	})
}

// A route that leads to a new cluster does not serve before the cluster does, but waits no longer than a moment.
func TestARouteWaitsForItsCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca", "Ea", "Lx:r1", "Rr1:a@1")
		version := func() string { return b.Snapshot().Routes[0].Active.Version }
		b.step(t, "Cb", "Rr1:a,b@2")
		if version() != "1" {
			t.Error("the route leads to a cluster without endpoints")
		}
		b.step(t, "Eb")
		if version() != "2" {
			t.Error("the route still waits")
		}
		b.step(t, "Cc", "Rr1:c@3", "Rr1:c@4")
		time.Sleep(grace + time.Millisecond)
		synctest.Wait()
		if version() != "4" {
			t.Error("the route waits for ever")
		}
		b.step(t, "Rr1:unknown@5")
		if version() != "5" {
			t.Error("the route waits for a cluster that nobody has announced")
		}
	})
}

// A cluster goes after the routes that lead to it, but stays no longer than a moment.
func TestAClusterStaysForItsRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca", "Cb", "Cc", "Ea", "Eb", "Ec", "Lx:r1", "Rr1:a")
		b.step(t, "C-a", "C-c")
		b.expect(t, "L:x R:r1 C:a,b E:a,b", "a,b,r1")
		b.step(t, "Rr1:b")
		b.expect(t, "L:x R:r1 C:b E:b", "b,r1")
		b.step(t, "C-b")
		b.expect(t, "L:x R:r1 C:b E:b", "b,r1")
		b.step(t, "Cb")
		time.Sleep(2 * grace)
		synctest.Wait()
		b.expect(t, "L:x R:r1 C:b E:b", "b,r1")
		b.step(t, "C-b")
		time.Sleep(grace + time.Millisecond)
		synctest.Wait()
		b.expect(t, "L:x R:r1 C: E:", "r1")
	})
}

// Listeners that cannot be opened are tried again, and the proxy is not ready before they are.
func TestSinkFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Assembler.mu.Lock()
		b.refuse = errors.New("address already in use")
		b.Assembler.mu.Unlock()
		b.step(t, "C", "Lx")
		if b.Failure() == nil {
			t.Error("no failure is shown")
		}
		time.Sleep(retry + time.Millisecond)
		synctest.Wait()
		select {
		case <-b.Ready():
			t.Error("ready without listeners")
		default:
		}
		b.Assembler.mu.Lock()
		b.refuse = nil
		b.Assembler.mu.Unlock()
		time.Sleep(retry + time.Millisecond)
		synctest.Wait()
		<-b.Ready()
		if b.Failure() != nil {
			t.Error(b.Failure())
		}
	})
}

// Only what changed gets a new map.
func TestSharing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.step(t, "Ca", "Ea", "Lx:r1", "Rr1:a")
		n := len(b.configs)
		b.step(t, "Rr1:a")
		b.step(t, "Ea")
		if len(b.configs) != n+2 {
			t.Fatalf("%d configurations after two changes", len(b.configs)-n)
		}
		if b.configs[n].Clusters["a"] != b.configs[n-1].Clusters["a"] {
			t.Error("a table was made anew without a change")
		}
		b.step(t, "E", "Runknown")
		if len(b.configs) != n+2 {
			t.Error("a change of nothing made a configuration")
		}
	})
}
