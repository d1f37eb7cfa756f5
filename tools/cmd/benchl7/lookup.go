package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/tools/bench"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

const (
	// fewRoutes are what a large table is compared with.
	fewRoutes = 10
	// lookupTarget is by how much the decision about a request may grow from fewRoutes to ten thousand: as the logarithm does, where asking
	// one route after the other would grow by hundreds. That it grows slower than the number of routes is what the design asks.
	lookupTarget = 4
)

// lookup is a kind of table whose cost is measured.
type lookup struct {
	name string
	// table has n routes; request is one that the k-th of them takes.
	table   func(n int) []*routev3.VirtualHost
	request func(k int) request
}

func lookupKinds() []lookup {
	oneHost := func(match func(k int) *routev3.RouteMatch) func(int) []*routev3.VirtualHost {
		return func(n int) []*routev3.VirtualHost {
			vh := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
			for k := range n {
				vh.Routes = append(vh.Routes, routeTo(match(k)))
			}
			return []*routev3.VirtualHost{vh}
		}
	}
	path := func(k int) string { return fmt.Sprintf("/api/v1/resource-%d", k) }
	below := func(k int) request { return request{"example.com", path(k) + "/items/4711?fields=name"} }
	return []lookup{
		{"route-exact", oneHost(func(k int) *routev3.RouteMatch {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path(k)}}
		}), func(k int) request { return request{"example.com", path(k) + "?fields=name"} }},
		{"route-prefix", oneHost(func(k int) *routev3.RouteMatch {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path(k)}}
		}), below},
		{"route-regex", oneHost(func(k int) *routev3.RouteMatch {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: path(k) + "/items/[0-9]+"}}}
		}), below},
		{"route-folded", oneHost(func(k int) *routev3.RouteMatch {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: path(k) + "/"}, CaseSensitive: wrapperspb.Bool(false)}
		}), below},
		{"route-hosts", func(n int) []*routev3.VirtualHost {
			var out []*routev3.VirtualHost
			for k := range n {
				out = append(out, &routev3.VirtualHost{
					Name: domain(k), Domains: []string{domain(k)},
					Routes: []*routev3.Route{routeTo(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}})},
				})
			}
			return out
		}, func(k int) request { return request{domain(k), "/items/4711"} }},
	}
}

func routeTo(m *routev3.RouteMatch) *routev3.Route {
	return &routev3.Route{Match: m, Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "pod"}}}}
}

// lookups measures what the decision about a request costs with few routes and with many: by the engine's own tables, in this process.
func lookups(ctx context.Context, b *testbed, r *report) error {
	return r.table(fmt.Sprintf("decision about a request\t%d routes\t%d", fewRoutes, b.options.routes), func(w io.Writer) error {
		for _, kind := range lookupKinds() {
			if !b.options.wants(kind.name) {
				continue
			}
			var tables []*decider
			for _, n := range []int{fewRoutes, b.options.routes} {
				d, err := newDecider(kind, n)
				if err != nil {
					return fmt.Errorf("%s: %d routes: %w", kind.name, n, err)
				}
				tables = append(tables, d)
			}
			for range b.options.reps {
				for _, d := range tables {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if err := d.measure(b.options.requests); err != nil {
						return fmt.Errorf("%s: %w", kind.name, err)
					}
				}
			}
			few, many := median(tables[0].cpu), median(tables[1].cpu)
			fmt.Fprintf(w, "%s\t%.0f ns\t%.0f ns\n", kind.name, few, many)
			r.ratio(kind.name, many/few, lookupTarget)
		}
		return nil
	})
}

// decider decides about requests by one table.
type decider struct {
	config   *l7.Config
	chain    *l7.Chain
	conn     l7.Conn
	requests []request
	cpu      []float64 // of each repetition, nanoseconds for a request
}

func newDecider(kind lookup, n int) (*decider, error) {
	routes := &routev3.RouteConfiguration{Name: "routes", VirtualHosts: kind.table(n)}
	router, err := anypb.New(&routerv3.Router{})
	if err != nil {
		return nil, err
	}
	manager, err := anypb.New(&hcmv3.HttpConnectionManager{
		StatPrefix: "bench", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}}},
	})
	if err != nil {
		return nil, err
	}
	listener, err := l7.CompileListener(&listenerv3.Listener{
		Name:    "l",
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}}},
		FilterChains: []*listenerv3.FilterChain{{Name: "c", Filters: []*listenerv3.Filter{{
			Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager},
		}}}},
	})
	if err != nil {
		return nil, err
	}
	cluster, err := l7.CompileCluster(&clusterv3.Cluster{Name: "pod", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}})
	if err != nil {
		return nil, err
	}
	d := &decider{
		config: l7.NewConfig().With(l7.Update{Listeners: map[string]*l7.Listener{"l": listener}, Clusters: map[string]*l7.Cluster{"pod": cluster}}),
		conn:   l7.Conn{Source: netip.MustParseAddrPort("127.0.0.1:4711"), Destination: netip.MustParseAddrPort("127.0.0.1:80")},
	}
	d.chain, _ = d.config.Chain("l", &d.conn, l7.ProtocolHTTP1)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1024 { // all over the table, so that it has to come from memory
		d.requests = append(d.requests, kind.request(rnd.IntN(n)))
	}
	return d, nil
}

// measure decides about n requests and notes what one has cost.
func (d *decider) measure(n int) error {
	var head httpmsg.Head
	var r l7.Request
	var decision l7.Decision
	rnd, now := rand.New(rand.NewPCG(3, 4)), time.Now()
	before := bench.CPUTime()
	for i := range n {
		of := &d.requests[i%len(d.requests)]
		head.Reset()
		head.Version, head.Method, head.Authority, head.Path = httpmsg.HTTP11, "GET", of.authority, of.path
		head.Header.Add("user-agent", "bench/1.0")
		r.Begin(&head, &d.conn)
		d.config.Decide(&decision, d.chain, &r, now, rnd)
		if decision.ClusterName != "pod" {
			return fmt.Errorf("%s%s finds no route: %s", of.authority, of.path, decision.Details)
		}
	}
	d.cpu = append(d.cpu, float64(bench.CPUTime()-before)/float64(n))
	return nil
}
