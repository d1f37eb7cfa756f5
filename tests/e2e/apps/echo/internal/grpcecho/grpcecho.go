// Package grpcecho is the gRPC service proto.EchoTestService with its one method Echo. Request and response have one field,
// string message = 1, for which the well-known StringValue stands on the wire.
package grpcecho

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Method is the full name of Echo.
const Method = "/proto.EchoTestService/Echo"

// Server answers Echo.
type Server interface {
	Echo(ctx context.Context, message string) (string, error)
}

// Register serves s.
func Register(registrar grpc.ServiceRegistrar, s Server) {
	registrar.RegisterService(&grpc.ServiceDesc{
		ServiceName: "proto.EchoTestService", HandlerType: (*Server)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: echo}},
	}, s)
}

//nolint:revive // the order of arguments is grpc's
func echo(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := &wrapperspb.StringValue{}
	if err := decode(in); err != nil {
		return nil, err
	}
	out, err := srv.(Server).Echo(ctx, in.GetValue())
	if err != nil {
		return nil, err
	}
	return wrapperspb.String(out), nil
}

// Call asks the server at the other end of conn.
func Call(ctx context.Context, conn grpc.ClientConnInterface, message string, options ...grpc.CallOption) (string, error) {
	out := &wrapperspb.StringValue{}
	if err := conn.Invoke(ctx, Method, wrapperspb.String(message), out, options...); err != nil {
		return "", err
	}
	return out.GetValue(), nil
}
