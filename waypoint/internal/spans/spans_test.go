package spans

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// collector remembers what it was sent.
type collector struct {
	mu     sync.Mutex // guards what follows
	heads  []httpmsg.Head
	bodies [][]byte
	err    error
}

func (c *collector) send(_ context.Context, _ string, head *httpmsg.Head, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads, c.bodies = append(c.heads, *head), append(c.bodies, slices.Clone(body))
	return c.err
}

// record is a request that has ended, as the proxy would tell of it.
func record(t *testing.T, c *tracing.Config, headers ...string) *proxy.Record {
	t.Helper()
	head := &httpmsg.Head{Version: httpmsg.HTTP11, Method: "GET", Authority: "reviews:9080", Path: "/a?b=c", ContentLength: -1}
	head.Header.Add("x-forwarded-proto", "http")
	head.Header.Add("user-agent", "curl")
	head.Header.Add("x-request-id", "00000000-6d2a-4b6a-8a3a-95a1c2e3d4f5")
	for i := 0; i < len(headers); i += 2 {
		head.Header.Add(headers[i], headers[i+1])
	}
	conn := &l7.Conn{Source: netip.MustParseAddrPort("10.0.0.9:1234"), Identity: "spiffe://cluster.local/ns/default/sa/productpage"}
	r := &l7.Request{}
	r.Begin(head, conn)
	r.ID = head.Header.Value("x-request-id")
	d := &l7.Decision{Span: c.Begin(&r.Info, "reviews.default.svc.cluster.local:9080/*", rand.New(rand.NewPCG(1, 2)))}
	return &proxy.Record{
		Kind: proxy.KindRequest, Start: time.Unix(1700000000, 5000), Duration: 12 * time.Millisecond, Conn: conn, Request: r, Decision: d, Header: &head.Header,
		Protocol: httpmsg.HTTP11, Method: "GET", Path: "/a?b=c", Authority: "reviews:9080", Status: 200, GRPCStatus: -1, BytesSent: 7,
		Source:  hbone.Workload{WorkloadName: "productpage-v1", WorkloadType: "deployment"},
		Cluster: &l7.Cluster{}, ClusterName: "inbound-vip|9080|http|reviews", Endpoint: &l7.Endpoint{Workload: "reviews-v1;default;reviews;v1;c1"},
	}
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func attributesOf(list []*commonv1.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		out[kv.GetKey()] = kv.GetValue().GetStringValue()
	}
	return out
}

// TestOpenTelemetry has time stand still: what is written within a moment goes in one request.
func TestOpenTelemetry(t *testing.T) { synctest.Test(t, openTelemetry) }

func openTelemetry(t *testing.T) {
	t.Helper()
	sink := &collector{}
	tracer := New(Config{Service: "waypoint.default", Node: "waypoint~1", Version: "v", Send: sink.send, Environment: func(name string) (string, bool) { return "of " + name, name == "HOME" }})
	c := config(t, otelConfig)
	c.Tags = []*tagv3.CustomTag{
		{Tag: "l", Type: &tagv3.CustomTag_Literal_{Literal: &tagv3.CustomTag_Literal{Value: "v"}}},
		{Tag: "e", Type: &tagv3.CustomTag_Environment_{Environment: &tagv3.CustomTag_Environment{Name: "HOME"}}},
		{Tag: "d", Type: &tagv3.CustomTag_Environment_{Environment: &tagv3.CustomTag_Environment{Name: "NONE", DefaultValue: "other"}}},
		{Tag: "h", Type: &tagv3.CustomTag_RequestHeader{RequestHeader: &tagv3.CustomTag_Header{Name: "User-Agent"}}},
		{Tag: "n", Type: &tagv3.CustomTag_RequestHeader{RequestHeader: &tagv3.CustomTag_Header{Name: "x-none", DefaultValue: "no"}}},
		{Tag: "f", Type: &tagv3.CustomTag_Value{Value: "%RESPONSE_CODE%-%FILTER_STATE(downstream_peer:FIELD:workload)%"}},
		{Tag: "absent", Type: &tagv3.CustomTag_Value{Value: "%FILTER_STATE(upstream_peer:FIELD:type)%"}},
	}
	tracer.Write(record(t, c, "traceparent", parent, "tracestate", "a=b"))
	failed := record(t, c, "traceparent", parent, "x-bad", "\xff")
	failed.Status, failed.Flags = 503, l7.FlagNoHealthyUpstream
	tracer.Write(failed)
	tracer.Write(record(t, c, "traceparent", strings.TrimSuffix(parent, "1")+"0")) // not sampled
	tracer.Close()
	if len(sink.bodies) != 1 || tracer.OpenTelemetry().Sent.Load() != 2 || tracer.OpenTelemetry().Dropped.Load() != 0 {
		t.Fatalf("%d requests, %d spans sent", len(sink.bodies), tracer.OpenTelemetry().Sent.Load())
	}
	head, body := &sink.heads[0], sink.bodies[0]
	if head.Path != "/opentelemetry.proto.collector.trace.v1.TraceService/Export" || head.Version != httpmsg.HTTP2 || head.Authority != "otel.example.com" ||
		head.Header.Value("content-type") != "application/grpc" || head.Header.Value("te") != "trailers" || head.Header.Value("x-token") != "secret" {
		t.Errorf("%+v", head)
	}
	if body[0] != 0 || int(body[1])<<24|int(body[2])<<16|int(body[3])<<8|int(body[4]) != len(body)-5 {
		t.Fatalf("framed as % x", body[:5])
	}
	// The request has the shape of TracesData.
	var data tracev1.TracesData
	if err := (proto.UnmarshalOptions{}).Unmarshal(body[5:], &data); err != nil || len(data.ProtoReflect().GetUnknown()) > 0 {
		t.Fatal(err)
	}
	resource := attributesOf(data.GetResourceSpans()[0].GetResource().GetAttributes())
	if resource["service.name"] != "reviews-waypoint" || resource["telemetry.sdk.name"] == "" {
		t.Errorf("resource %v", resource)
	}
	spans := data.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if hexOf(s.GetTraceId()) != "4bf92f3577b34da6a3ce929d0e0e4736" || hexOf(s.GetParentSpanId()) != "00f067aa0ba902b7" || len(s.GetSpanId()) != 8 || s.GetTraceState() != "a=b" {
		t.Errorf("%v", s)
	}
	if s.GetName() != "reviews.default.svc.cluster.local:9080/*" || s.GetKind() != tracev1.Span_SPAN_KIND_SERVER ||
		s.GetStartTimeUnixNano() != 1700000000000005000 || s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano() != 12e6 {
		t.Errorf("%v", s)
	}
	got := attributesOf(s.GetAttributes())
	for key, want := range map[string]string{
		"http.url": "http://reviews:9080/a?b=c", "http.method": "GET", "http.status_code": "200", "http.protocol": "HTTP/1.1", "component": "proxy",
		"upstream_cluster": "inbound-vip|9080|http|reviews", "response_flags": "-", "peer.address": "10.0.0.9", "response_size": "7", "request_size": "0",
		"user_agent": "curl", "downstream_cluster": "-", "node_id": "waypoint~1", "guid:x-request-id": "00000000-6d2a-9b6a-8a3a-95a1c2e3d4f5",
		"l": "v", "e": "of HOME", "d": "other", "h": "curl", "n": "no", "f": "200-productpage-v1",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if _, ok := got["absent"]; ok || got["error"] != "" || s.GetStatus().GetCode() != tracev1.Status_STATUS_CODE_UNSET {
		t.Errorf("%v, status %v", got, s.GetStatus())
	}
	if bad := spans[1]; attributesOf(bad.GetAttributes())["error"] != "true" || bad.GetStatus().GetCode() != tracev1.Status_STATUS_CODE_ERROR || attributesOf(bad.GetAttributes())["response_flags"] != "UH" {
		t.Errorf("%v", bad)
	}
}

// TestZipkin has time stand still: what is written within a moment goes in one request.
func TestZipkin(t *testing.T) { synctest.Test(t, zipkin) }

func zipkin(t *testing.T) {
	t.Helper()
	sink := &collector{}
	tracer := New(Config{Service: "waypoint.default", Address: "10.0.0.1", Send: sink.send})
	c := config(t, zipkinConfig)
	tracer.Write(record(t, c, "x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736", "x-b3-spanid", "00f067aa0ba902b7", "user-agent", "\"a\xffb\""))
	tracer.Write(record(t, c))
	tracer.Close()
	if len(sink.bodies) != 1 || sink.heads[0].Path != "/api/v2/spans" || sink.heads[0].Header.Value("content-type") != "application/json" || tracer.Zipkin().Sent.Load() != 2 {
		t.Fatalf("%d requests: %+v", len(sink.bodies), sink.heads)
	}
	var got []struct {
		TraceID, ID, ParentID, Name, Kind string
		Timestamp, Duration               int64
		LocalEndpoint                     struct{ ServiceName, IPv4 string }
		Tags                              map[string]string
	}
	if err := json.Unmarshal(sink.bodies[0], &got); err != nil {
		t.Fatalf("%v: %s", err, sink.bodies[0])
	}
	s := got[0]
	if s.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || s.ParentID != "00f067aa0ba902b7" || len(s.ID) != 16 || s.Kind != "SERVER" || s.Duration != 12000 ||
		s.Timestamp != 1700000000000005 || s.LocalEndpoint.ServiceName != "waypoint.default" || s.LocalEndpoint.IPv4 != "10.0.0.1" || s.Tags["http.status_code"] != "200" {
		t.Errorf("%+v", s)
	}
	if got[1].ParentID != "" || got[1].TraceID == s.TraceID {
		t.Errorf("%+v", got[1])
	}
}

// A collector that is away costs no memory without end, and no request waits for it.
func TestCollectorAway(t *testing.T) {
	sink := &collector{err: errors.New("away")}
	tracer := New(Config{Send: sink.send})
	c := config(t, otelConfig)
	const n = 20000
	for range n {
		tracer.Write(record(t, c))
	}
	tracer.Close()
	if got := tracer.OpenTelemetry().Dropped.Load(); got != n || tracer.OpenTelemetry().Sent.Load() != 0 {
		t.Errorf("%d of %d dropped", got, n)
	}
	tracer.Write(record(t, c)) // after the end nothing is kept
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}
