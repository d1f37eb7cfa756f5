package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	typePrefix   = "type.googleapis.com/"
	listenerType = typePrefix + "envoy.config.listener.v3.Listener"
	clusterType  = typePrefix + "envoy.config.cluster.v3.Cluster"
	routeType    = typePrefix + "envoy.config.route.v3.RouteConfiguration"
)

// checkExtensions asserts that Envoy has every extension that the control plane configures. It asks the control plane itself: what
// Envoy refuses is not in Envoy's configuration.
func (b *testbed) checkExtensions(ctx context.Context, f *fixture, report *report) error {
	dump, err := b.configOf(ctx, b.proxies["waypoint"][0])
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, c := range dump.Configs {
		for _, e := range c.Bootstrap.Node.Extensions {
			for _, url := range e.TypeURLs {
				known[strings.TrimPrefix(url, typePrefix)] = true
			}
		}
	}
	if len(known) == 0 {
		return fmt.Errorf("%s does not list its extensions", b.proxies["waypoint"][0].pod)
	}
	for _, way := range ways() {
		if !f.uses(way) {
			continue
		}
		p := b.proxies[way][0]
		types, err := emitted(ctx, p)
		if err != nil {
			return err
		}
		for _, t := range types {
			if strings.HasPrefix(t, "envoy.extensions.") && !known[t] {
				report.problem("%s: Envoy lacks the extension %s, which is configured for %s", f.name, t, p.pod)
			}
		}
	}
	return nil
}

// emitted are the types of all messages that are packed in what the control plane sends to a proxy.
func emitted(ctx context.Context, p *proxy) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(net.JoinHostPort(hub().String(), "15010"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the control plane as %s: %w", p.pod, err)
	}
	metadata, err := structpb.NewStruct(map[string]any{
		"NAME": p.pod, "NAMESPACE": p.pair.namespace, "CLUSTER_ID": "Kubernetes", "LABELS": labelsStruct(p.pair.labels), "SERVICE_ACCOUNT": p.pair.account,
	})
	if err != nil {
		return nil, err
	}
	node := &corev3.Node{
		Id:       fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", p.pair.kind, p.ns.ip, p.pod, p.pair.namespace, p.pair.namespace),
		Metadata: metadata,
	}
	types, routes := map[string]bool{}, map[string]bool{}
	for _, t := range []string{clusterType, listenerType, routeType} {
		request := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: t}
		if t == routeType {
			if request.ResourceNamesSubscribe = sorted(routes); len(routes) == 0 {
				break
			}
		}
		if err := stream.Send(request); err != nil {
			return nil, err
		}
		response, err := stream.Recv()
		for err == nil && response.GetTypeUrl() != t {
			response, err = stream.Recv()
		}
		if err != nil {
			return nil, fmt.Errorf("ask the control plane as %s for %s: %w", p.pod, t, err)
		}
		for _, r := range response.GetResources() {
			if err := walk(r.GetResource(), types, routes); err != nil {
				return nil, fmt.Errorf("%s %s: %w", t, r.GetName(), err)
			}
		}
	}
	return sorted(types), nil
}

func labelsStruct(labels map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range labels {
		out[k] = v
	}
	return out
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// walk collects the types in a packed message, and the routes that it names. Types that this program does not know are not opened.
func walk(packed *anypb.Any, types, routes map[string]bool) error {
	types[string(packed.MessageName())] = true
	m, err := packed.UnmarshalNew()
	if err != nil {
		return fmt.Errorf("the type %s is not known here: %w", packed.GetTypeUrl(), err)
	}
	if hcm, ok := m.(*hcmv3.HttpConnectionManager); ok && hcm.GetRds().GetRouteConfigName() != "" {
		routes[hcm.GetRds().GetRouteConfigName()] = true
	}
	return walkMessage(m.ProtoReflect(), types, routes)
}

func walkMessage(m protoreflect.Message, types, routes map[string]bool) (err error) {
	visit := func(v protoreflect.Message) bool {
		if packed, ok := v.Interface().(*anypb.Any); ok {
			err = walk(packed, types, routes)
		} else {
			err = walkMessage(v, types, routes)
		}
		return err == nil
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { return visit(v.Message()) })
			}
		case f.IsList():
			for i := 0; f.Message() != nil && i < v.List().Len() && err == nil; i++ {
				visit(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			return visit(v.Message())
		}
		return err == nil
	})
	return err
}
