package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

const addressType = "type.googleapis.com/istio.workload.Address"

// fleet is a number of ztunnels, as far as the control plane can tell.
type fleet struct {
	wg    sync.WaitGroup
	stops []func()

	bytes  atomic.Int64                // received by all
	marker atomic.Pointer[[]byte]      // what is waited for
	last   atomic.Pointer[bench.Frame] // the last message that had it
	seen   chan struct{}               // one for each message that had it
}

func newFleet() *fleet { return &fleet{seen: make(chan struct{}, 1000)} }

// add connects one client and returns when it has its first state, and how large that was.
func (f *fleet) add(ctx context.Context, addr string) (int, error) {
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
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": "istio-system"})
	if err != nil {
		return 0, err
	}
	node := &corev3.Node{Id: "ztunnel~10.0.0.1~ztunnel.istio-system~istio-system.svc.cluster.local", Metadata: meta}
	if err := stream.SendMsg(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: addressType}); err != nil {
		return 0, err
	}
	first, err := f.next(stream)
	if err != nil {
		return 0, fmt.Errorf("first response: %w", err)
	}
	f.wg.Go(func() {
		for {
			m, err := f.next(stream)
			if err != nil {
				return
			}
			if marker := f.marker.Load(); marker != nil && bytes.Contains(m.Data, *marker) {
				f.last.Store(m)
				f.seen <- struct{}{}
			}
		}
	})
	return len(first.Data), nil
}

// next receives a response and acknowledges it.
func (f *fleet) next(stream grpc.ClientStream) (*bench.Frame, error) {
	var m bench.Frame
	if err := stream.RecvMsg(&m); err != nil {
		return nil, err
	}
	f.bytes.Add(int64(len(m.Data)))
	return &m, stream.SendMsg(&discovery.DeltaDiscoveryRequest{TypeUrl: addressType, ResponseNonce: string(field(m.Data, 5))})
}

func (f *fleet) close() {
	for _, stop := range f.stops {
		stop()
	}
	f.wg.Wait()
}
