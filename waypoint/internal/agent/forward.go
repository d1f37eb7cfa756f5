package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
)

// maxMessage is the size of the largest message that is passed on.
const maxMessage = 200 << 20

// discoveryMethods are what may be forwarded.
func discoveryMethods() []string {
	const service = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
	return []string{service + "DeltaAggregatedResources", service + "StreamAggregatedResources"}
}

// forwarder passes the engine's discovery streams on to the control plane with the proxy's credentials, message by message and
// without looking into them. Each stream has a connection of its own, so that renewed roots and addresses count.
type forwarder struct {
	upstream controlplane.Upstream
	log      *slog.Logger
}

// frame is a message as it is on the wire.
type frame struct{ payload []byte }

// raw is the codec that leaves messages as they are.
type raw struct{}

// Marshal implements encoding.CodecV2.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("forward a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.payload)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("forward a %T", v)
	}
	f.payload = data.Materialize()
	return nil
}

// Name implements encoding.CodecV2.
func (raw) Name() string { return "proto" }

// handle is the handler of every method.
func (f *forwarder) handle(_ any, down grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(down)
	if !ok || !slices.Contains(discoveryMethods(), method) {
		return status.Errorf(codes.Unimplemented, "method %s is not forwarded", method)
	}
	target, err := f.upstream.Target()
	if err != nil {
		return err
	}
	options, err := f.upstream.DialOptions()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(target, append(options, grpc.WithDisableServiceConfig())...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	up, err := conn.NewStream(ctx, description, method, grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage))
	if err != nil {
		f.log.Warn("control plane", "error", err)
		return err
	}
	requests := make(chan error, 1)
	go func() { requests <- pass(down, up, up.CloseSend) }()
	err = pass(up, down, func() error { return nil })
	cancel()
	// The engine's side ends when this handler returns; its goroutine then finds its stream broken.
	if err != nil {
		f.log.Warn("control plane; the engine serves what it knows", "error", err)
	}
	return err
}

// pass copies messages until the source ends, then calls end.
func pass(from, to interface {
	SendMsg(any) error
	RecvMsg(any) error
}, end func() error,
) error {
	for {
		var f frame
		if err := from.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return end()
			}
			return err
		}
		if err := to.SendMsg(&f); err != nil {
			return err
		}
	}
}
