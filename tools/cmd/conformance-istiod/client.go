package main

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
)

const (
	addressType       = "type.googleapis.com/istio.workload.Address"
	authorizationType = "type.googleapis.com/istio.security.Authorization"
)

// ztunnel has what a control plane tells the proxy of a node.
type ztunnel struct {
	// immutable
	client *client.Client
	stop   func()
	wake   chan struct{} // holds one token: something came

	// guarded by mu
	mu        sync.Mutex
	resources map[string]proto.Message
	changed   time.Time // when something came last
}

// connect subscribes to everything, and returns when the first answers are there.
func connect(ctx context.Context, addr string) (*ztunnel, error) {
	meta, err := structpb.NewStruct(map[string]any{
		"NAME": "ztunnel-0", "NAMESPACE": "istio-system", "NODE_NAME": "node-0", "CLUSTER_ID": "Kubernetes", "INSTANCE_IPS": "10.0.0.1",
	})
	if err != nil {
		return nil, err
	}
	z := &ztunnel{resources: map[string]proto.Message{}, wake: make(chan struct{}, 1)}
	address := handler{z, "address/", func() proto.Message { return &workload.Address{} }}
	policy := handler{z, "policy/", func() proto.Message { return &security.Authorization{} }}
	z.client = client.New(client.Config{
		Target: addr,
		Dial: func() ([]grpc.DialOption, error) {
			return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
		},
		Node:  &corev3.Node{Id: "ztunnel~10.0.0.1~ztunnel-0.istio-system~istio-system.svc.cluster.local", Metadata: meta},
		Types: []client.Watch{{TypeURL: addressType, Handler: address}, {TypeURL: authorizationType, Handler: policy}},
	})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- z.client.Run(ctx) }()
	z.stop = func() { cancel(); <-ended }
	select {
	case <-z.client.Synced():
		return z, nil
	case <-time.After(slow):
		z.stop()
		return nil, fmt.Errorf("the control plane at %s does not answer: %w", addr, errSlow)
	}
}

// handler takes the resources of one type.
type handler struct {
	z      *ztunnel
	prefix string
	empty  func() proto.Message
}

// Apply implements client.Handler.
func (h handler) Apply(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	z := h.z
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, r := range updated {
		m := h.empty()
		if err := proto.Unmarshal(r.Any.GetValue(), m); err != nil {
			rejected = append(rejected, client.Rejected{Name: r.Name, Reason: err.Error()})
			continue
		}
		z.resources[h.prefix+r.Name] = m
	}
	for _, name := range removed {
		delete(z.resources, h.prefix+name)
	}
	z.changed = time.Now()
	select {
	case z.wake <- struct{}{}:
	default:
	}
	return rejected
}

// state is what has come so far, and when the last of it came.
func (z *ztunnel) state() (map[string]proto.Message, time.Time) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return maps.Clone(z.resources), z.changed
}
