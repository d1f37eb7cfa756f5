package spans

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

func otelConfig() proto.Message {
	return &tracev3.OpenTelemetryConfig{ServiceName: "reviews-waypoint", GrpcService: &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "outbound|4317||otel", Authority: "otel.example.com"}},
		InitialMetadata: []*corev3.HeaderValue{{Key: "X-Token", Value: "secret"}},
	}}
}

func zipkinConfig() proto.Message {
	return &tracev3.ZipkinConfig{
		CollectorCluster: "outbound|9411||zipkin", CollectorEndpoint: "/api/v2/spans", CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON,
		TraceId_128Bit: true, SharedSpanContext: wrapperspb.Bool(false),
	}
}

// config compiles a provider as a listener would have it.
func config(t *testing.T, provider func() proto.Message) *tracing.Config {
	t.Helper()
	typed, err := anypb.New(provider())
	if err != nil {
		t.Fatal(err)
	}
	p := &hcmv3.HttpConnectionManager{Tracing: &hcmv3.HttpConnectionManager_Tracing{
		Provider: &tracev3.Tracing_Http{Name: "x", ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: typed}},
	}}
	if err := strict.Check(p); err != nil {
		t.Fatal(err)
	}
	c, err := tracing.Compile(p, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
