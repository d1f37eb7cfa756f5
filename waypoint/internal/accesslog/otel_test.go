package accesslog

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func anyText(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

func expressionOf(t *testing.T, expression string) *accesslogv3.AccessLogFilter {
	t.Helper()
	config, err := anypb.New(&celfilterv3.ExpressionFilter{Expression: expression})
	if err != nil {
		t.Fatal(err)
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name: "cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: config},
	}}}
}

func otelLog(body string) *otelv3.OpenTelemetryAccessLogConfig {
	return &otelv3.OpenTelemetryAccessLogConfig{
		CommonConfig: &grpcv3.CommonGrpcAccessLogConfig{LogName: "mine", GrpcService: &corev3.GrpcService{ //nolint:staticcheck // the older form, which control planes still send
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "collector", Authority: "otel"}},
		}},
		Body: anyText(body),
		Attributes: &commonv1.KeyValueList{Values: []*commonv1.KeyValue{
			{Key: "code", Value: anyText("%RESPONSE_CODE%")},
			{Key: "nested", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_KvlistValue{KvlistValue: &commonv1.KeyValueList{Values: []*commonv1.KeyValue{{Key: "a", Value: anyText("b")}}}}}},
		}},
	}
}

func TestOpenTelemetryLog(t *testing.T) {
	var mu sync.Mutex
	var bodies [][]byte
	var heads []httpmsg.Head
	log := New(Config{Node: "node", Cluster: "waypoint.default", Send: func(_ context.Context, cluster string, head *httpmsg.Head, body []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if cluster == "collector" {
			bodies, heads = append(bodies, slices.Clone(body)), append(heads, *head)
		}
		return nil
	}})
	chain := &l7.Chain{HTTP: &l7.HTTPManager{AccessLogs: []*accesslogv3.AccessLog{
		typed(t, otelLog("%REQ(:METHOD)% %PROTOCOL%"), expressionOf(t, "response.code < 500")),
	}}}
	r := sample()
	r.Chain = chain
	log.Write(r)
	failed := sample()
	failed.Chain, failed.Status = chain, 503
	log.Write(failed)
	log.Flush()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if len(bodies) != 1 || log.Collected().Sent.Load() != 1 || heads[0].Path != "/opentelemetry.proto.collector.logs.v1.LogsService/Export" || heads[0].Authority != "otel" {
		t.Fatalf("%d requests, %d records, %+v", len(bodies), log.Collected().Sent.Load(), heads)
	}
	var data logsv1.LogsData
	if err := proto.Unmarshal(bodies[0][5:], &data); err != nil {
		t.Fatal(err)
	}
	resource := map[string]string{}
	for _, kv := range data.GetResourceLogs()[0].GetResource().GetAttributes() {
		resource[kv.GetKey()] = kv.GetValue().GetStringValue()
	}
	if resource["log_name"] != "mine" || resource["node_name"] != "node" || resource["cluster_name"] != "waypoint.default" {
		t.Errorf("resource %v", resource)
	}
	records := data.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()
	if len(records) != 1 || records[0].GetBody().GetStringValue() != "GET HTTP/1.1" || records[0].GetTimeUnixNano() != uint64(r.Start.UnixNano()) {
		t.Fatalf("%v", records)
	}
	a := records[0].GetAttributes()
	if len(a) != 2 || a[0].GetValue().GetStringValue() != "200" || a[1].GetValue().GetKvlistValue().GetValues()[0].GetValue().GetStringValue() != "b" {
		t.Errorf("%v", a)
	}
}

func TestOpenTelemetryRefused(t *testing.T) {
	for want, p := range map[string]*accesslogv3.AccessLog{
		"envoy_grpc is required":     typed(t, &otelv3.OpenTelemetryAccessLogConfig{}, nil),
		"body":                       typed(t, otelLog("%NOTHING%"), nil),
		"the expression \"respons":   typed(t, otelLog("x"), expressionOf(t, "respons.code > 1")),
		"use grpc_service":           typed(t, &otelv3.OpenTelemetryAccessLogConfig{HttpService: &corev3.HttpService{}}, nil),
		"resource_detectors are not": typed(t, &otelv3.OpenTelemetryAccessLogConfig{ResourceDetectors: []*corev3.TypedExtensionConfig{{}}}, nil),
	} {
		if _, err := compile(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
