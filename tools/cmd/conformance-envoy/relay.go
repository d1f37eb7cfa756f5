package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// relay tells Envoy what Istio's control plane does, but for the extensions that only Istio's own build of Envoy has. They report; none
// decides what becomes of a request.
type relay struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	upstream discoveryv3.AggregatedDiscoveryServiceClient
	conn     *grpc.ClientConn
	server   *grpc.Server
}

func startRelay(ctx context.Context, listen, upstream string) (*relay, error) {
	conn, err := grpc.NewClient(upstream, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	r := &relay{upstream: discoveryv3.NewAggregatedDiscoveryServiceClient(conn), conn: conn, server: grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r.server, r)
	go func() { _ = r.server.Serve(l) }() // until stop
	return r, nil
}

func (r *relay) stop() {
	r.server.Stop()
	_ = r.conn.Close()
}

// DeltaAggregatedResources implements the discovery service.
func (r *relay) DeltaAggregatedResources(down discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	up, err := r.upstream.DeltaAggregatedResources(down.Context())
	if err != nil {
		return err
	}
	go func() {
		for {
			request, err := down.Recv()
			if err != nil || up.Send(request) != nil {
				_ = up.CloseSend()
				return
			}
		}
	}()
	for {
		response, err := up.Recv()
		if err != nil {
			return err
		}
		for _, resource := range response.GetResources() {
			if err := strip(resource.GetResource()); err != nil {
				return fmt.Errorf("%s: %w", resource.GetName(), err)
			}
		}
		if err := down.Send(response); err != nil {
			return err
		}
	}
}

// strip takes Istio's own extensions out of a resource.
func strip(resource *anypb.Any) error {
	message, err := resource.UnmarshalNew()
	if err != nil {
		return err
	}
	switch m := message.(type) {
	case *listenerv3.Listener:
		err = stripListener(m)
	case *clusterv3.Cluster:
		m.Filters = slices.DeleteFunc(m.Filters, func(f *clusterv3.Filter) bool { return foreign(f.GetTypedConfig()) })
	case *routev3.RouteConfiguration:
		stripRoutes(m)
	}
	if err != nil {
		return err
	}
	resource.Value, err = proto.Marshal(message)
	return err
}

func stripListener(l *listenerv3.Listener) error {
	l.ListenerFilters = slices.DeleteFunc(l.ListenerFilters, func(f *listenerv3.ListenerFilter) bool { return foreign(f.GetTypedConfig()) })
	chains := l.GetFilterChains()
	if l.GetDefaultFilterChain() != nil {
		chains = append(slices.Clone(chains), l.GetDefaultFilterChain())
	}
	for _, chain := range chains {
		chain.Filters = slices.DeleteFunc(chain.Filters, func(f *listenerv3.Filter) bool { return foreign(f.GetTypedConfig()) })
		for _, f := range chain.GetFilters() {
			if err := nameFactories(f.GetTypedConfig()); err != nil {
				return err
			}
			manager := &hcmv3.HttpConnectionManager{}
			if !f.GetTypedConfig().MessageIs(manager) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(manager); err != nil {
				return err
			}
			manager.HttpFilters = slices.DeleteFunc(manager.HttpFilters, func(f *hcmv3.HttpFilter) bool { return f.GetTypedConfig() != nil && foreign(f.GetTypedConfig()) })
			for _, h := range manager.GetHttpFilters() {
				if err := nameFactories(h.GetTypedConfig()); err != nil {
					return err
				}
			}
			stripRoutes(manager.GetRouteConfig())
			if err := f.GetTypedConfig().MarshalFrom(manager); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameFactories has filter state made by Envoy's own factory of strings, which is called by another name in Istio's build.
func nameFactories(config *anypb.Any) error {
	http, network := &httpstatev3.Config{}, &networkstatev3.Config{}
	name := func(values []*filterstatev3.FilterStateValue) {
		for _, v := range values {
			if v.GetFactoryKey() == "istio.hashable_string" {
				v.FactoryKey = "envoy.hashable_string"
			}
		}
	}
	switch {
	case config.MessageIs(http):
		if err := config.UnmarshalTo(http); err != nil {
			return err
		}
		name(http.GetOnRequestHeaders())
		return config.MarshalFrom(http)
	case config.MessageIs(network):
		if err := config.UnmarshalTo(network); err != nil {
			return err
		}
		name(network.GetOnNewConnection())
		return config.MarshalFrom(network)
	}
	return nil
}

func stripRoutes(rc *routev3.RouteConfiguration) {
	clean := func(m map[string]*anypb.Any) {
		for name, config := range m {
			if foreign(config) {
				delete(m, name)
			}
		}
	}
	for _, host := range rc.GetVirtualHosts() {
		host.IncludeRequestAttemptCount = true // as ours does at waypoints, too
		clean(host.GetTypedPerFilterConfig())
		for _, route := range host.GetRoutes() {
			clean(route.GetTypedPerFilterConfig())
			for _, c := range route.GetRoute().GetWeightedClusters().GetClusters() {
				clean(c.GetTypedPerFilterConfig())
			}
		}
	}
}

// foreign is whether an extension is not Envoy's own.
func foreign(config *anypb.Any) bool {
	return !strings.HasPrefix(config.GetTypeUrl(), typePrefix+"envoy.")
}
