package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/tools/bench"
	"github.com/isthmus-mesh/isthmus/tools/internal/pilotbed"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

const (
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// fleet is a number of waypoint pods, as far as the control plane can tell.
type fleet struct {
	wg    sync.WaitGroup
	stops []func()
	watch int // pods that a change concerns

	bytes    atomic.Int64 // received by those
	resource atomic.Int64 // size of the last resource with a marker
	marker   atomic.Pointer[string]
	seen     chan error // one for each pod in whose routing the marker is
}

func newFleet() *fleet { return &fleet{seen: make(chan error, 1000)} }

func (f *fleet) close() {
	for _, stop := range f.stops {
		stop()
	}
	f.wg.Wait()
}

// waypoint is one pod of a waypoint: what it has is compiled and swapped in as our engine does.
type waypoint struct {
	fleet   *fleet
	stream  grpc.ClientStream
	watched bool
	// compiles: the pods of a waypoint share this machine with the control plane here, but no work in a mesh: one of them compiles what
	// changes, the others take it as it is.
	compiles bool
	config   atomic.Pointer[l7.Config]
}

// add connects a pod of a namespace's waypoint, and returns when it has its first state, and how large that was.
func (f *fleet) add(ctx context.Context, addr, namespace string, watched bool) (int, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bench.NewFrames()), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return 0, err
	}
	f.stops = append(f.stops, func() { conn.Close() })
	stream, err := conn.NewStream(ctx, bench.Bidi(), discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName)
	if err != nil {
		return 0, err
	}
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": namespace, "LABELS": map[string]any{"gateway.networking.k8s.io/gateway-name": "waypoint"}})
	if err != nil {
		return 0, err
	}
	p := &waypoint{fleet: f, stream: stream, watched: watched, compiles: true}
	p.config.Store(&l7.Config{})
	node := &corev3.Node{Id: "waypoint~10.0.0.1~waypoint-1." + namespace + "~" + namespace + ".svc.cluster.local", Metadata: meta}
	total, err := p.start(node)
	if err != nil {
		return 0, err
	}
	if watched {
		f.watch++
		p.compiles = f.watch == 1
	}
	f.wg.Go(p.follow)
	return total, nil
}

// start asks for each type in turn: clusters, their endpoints, listeners, routes.
func (p *waypoint) start(node *corev3.Node) (total int, err error) {
	for _, typeURL := range []string{clusterType, endpointType, listenerType, routeType} {
		r := &discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL}
		for name := range p.config.Load().Clusters {
			switch {
			case !strings.Contains(name, "|"):
			case typeURL == endpointType:
				r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
			case typeURL == routeType && strings.Contains(name, "|http|"):
				r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
			}
		}
		node = nil
		if err := p.stream.SendMsg(r); err != nil {
			return total, err
		}
		response, size, err := p.next()
		if err != nil {
			return total, err
		}
		total += size
		if len(response.GetResources()) == 0 {
			return total, fmt.Errorf("nothing of type %s", typeURL)
		}
	}
	return total, nil
}

// next receives a response, puts it into the routing, and acknowledges it.
func (p *waypoint) next() (*discovery.DeltaDiscoveryResponse, int, error) {
	var m bench.Frame
	if err := p.stream.RecvMsg(&m); err != nil {
		return nil, 0, err
	}
	var r discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(m.Data, &r); err != nil {
		return nil, 0, err
	}
	if p.compiles {
		if err := p.apply(&r); err != nil {
			return nil, 0, err
		}
	}
	if p.watched {
		p.fleet.bytes.Add(int64(len(m.Data)))
		p.mark(&r)
	}
	return &r, len(m.Data), p.stream.SendMsg(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

// mark tells whoever changes things that the change is in force here.
func (p *waypoint) mark(r *discovery.DeltaDiscoveryResponse) {
	marker := p.fleet.marker.Load()
	if marker == nil {
		return
	}
	for _, res := range r.GetResources() {
		if bytes.Contains(res.GetResource().GetValue(), []byte(*marker)) {
			p.fleet.resource.Store(int64(proto.Size(res)))
			p.fleet.seen <- nil
			return
		}
	}
}

func (p *waypoint) follow() {
	for {
		if _, _, err := p.next(); err != nil {
			if p.watched {
				select {
				case p.fleet.seen <- err:
				default:
				}
			}
			return
		}
	}
}

func (p *waypoint) apply(r *discovery.DeltaDiscoveryResponse) error {
	u := l7.Update{
		Listeners: map[string]*l7.Listener{}, Routes: map[string]*l7.Routes{},
		Clusters: map[string]*l7.Cluster{}, Endpoints: map[string]*l7.Endpoints{},
	}
	for _, res := range r.GetResources() {
		var err error
		raw, name := res.GetResource().GetValue(), res.GetName()
		switch r.GetTypeUrl() {
		case clusterType:
			u.Clusters[name], err = compiled(raw, &clusterv3.Cluster{}, l7.CompileCluster)
		case endpointType:
			u.Endpoints[name], err = compiled(raw, &endpointv3.ClusterLoadAssignment{}, l7.CompileEndpoints)
		case listenerType:
			u.Listeners[name], err = compiled(raw, &listenerv3.Listener{}, l7.CompileListener)
		case routeType:
			u.Routes[name], err = compiled(raw, &routev3.RouteConfiguration{}, l7.CompileRoutes)
		}
		if err != nil {
			return fmt.Errorf("compile %s: %w", name, err)
		}
	}
	for _, name := range r.GetRemovedResources() {
		return fmt.Errorf("%s is gone", name)
	}
	p.config.Store(p.config.Load().With(u))
	return nil
}

func compiled[P proto.Message, T any](raw []byte, into P, compile func(P) (*T, error)) (*T, error) {
	if err := proto.Unmarshal(raw, into); err != nil {
		return nil, err
	}
	return compile(into)
}

// change makes n changes, one after the other, each when all watched pods have the one before, and returns how long each took.
func (f *fleet) change(m *pilotbed.Mover, n int) ([]time.Duration, error) {
	return m.Change(n, func(marker string) { f.marker.Store(&marker) }, func(timeout <-chan time.Time) error {
		for range f.watch {
			select {
			case err := <-f.seen:
				if err != nil {
					return err
				}
			case <-timeout:
				return errors.New("it does not reach all")
			}
		}
		return nil
	})
}
