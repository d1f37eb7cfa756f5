package proxy

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// TestInterop: the interoperability cases of gRPC, between a client and a server of grpc-go, through the waypoint: all but
// those of credentials, of client-side balancing and of load reports, which are not a proxy's. A case that fails ends the whole test
// program, with its reason in the log.
func TestInterop(t *testing.T) {
	b := newBed(t)
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	conn := b.grpc(server)
	client := testgrpc.NewTestServiceClient(conn)
	simple := func(f func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context) {
		return func(ctx context.Context) { f(ctx, client) }
	}
	for _, tt := range []struct {
		name string
		run  func(context.Context)
	}{
		{"empty_unary", simple(interop.DoEmptyUnaryCall)},
		{"large_unary", simple(interop.DoLargeUnaryCall)},
		{"client_streaming", simple(interop.DoClientStreaming)},
		{"server_streaming", simple(interop.DoServerStreaming)},
		{"ping_pong", simple(interop.DoPingPong)},
		{"empty_stream", simple(interop.DoEmptyStream)},
		{"timeout_on_sleeping_server", simple(interop.DoTimeoutOnSleepingServer)},
		{"cancel_after_begin", simple(interop.DoCancelAfterBegin)},
		{"cancel_after_first_response", simple(interop.DoCancelAfterFirstResponse)},
		{"custom_metadata", simple(interop.DoCustomMetadata)},
		{"status_code_and_message", simple(interop.DoStatusCodeAndMessage)},
		{"special_status_message", simple(interop.DoSpecialStatusMessage)},
		{"unimplemented_method", func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, conn) }},
		{"unimplemented_service", func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			tt.run(ctx)
		})
	}
}
