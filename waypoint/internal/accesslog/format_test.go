package accesslog

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

func header(pairs ...string) *httpmsg.Header {
	h := &httpmsg.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// meshFormat is what the control plane of the field asks for.
const meshFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
	"%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"

// sample is a request through a waypoint, as Envoy would tell of it.
func sample() *proxy.Record {
	request := &l7.Request{}
	head := &httpmsg.Head{ContentLength: -1, Method: "GET", Path: "/v2/reviews/0?x=y", Authority: "reviews:9080", Scheme: "http"}
	head.Header.CopyFrom(header("x-envoy-original-path", "/reviews/0?x=y", "user-agent", "curl/8", "x-request-id", "id-1", "x-forwarded-for", "10.0.0.1", "x-forwarded-for", "10.0.0.2"))
	request.Begin(head, nil)
	request.SetState("colour", "green")
	request.SetMetadata("envoy.filters.http.jwt_authn", "payload", map[string]any{"sub": "me", "groups": []any{"a"}})
	return &proxy.Record{
		Kind: proxy.KindRequest, Start: time.Date(2026, 11, 21, 8, 4, 39, 123456789, time.FixedZone("x", 3600)), Duration: 12345 * time.Microsecond,
		Listener: "main_internal", Chain: &l7.Chain{Name: "inbound-vip|9080||reviews.default.svc.cluster.local-http"},
		Conn: &l7.Conn{
			Source: netip.MustParseAddrPort("10.0.0.5:41234"), Destination: netip.MustParseAddrPort("10.96.0.9:9080"),
			Identity: "spiffe://cluster.local/ns/default/sa/productpage", LocalIdentity: "spiffe://cluster.local/ns/default/sa/waypoint",
		},
		ConnectionID: 7,
		Request:      request, Protocol: httpmsg.HTTP11, Method: "GET", Path: "/reviews/0?x=y", Authority: "reviews:9080",
		Header: &head.Header,
		Status: 200, Response: header("x-envoy-upstream-service-time", "11", "server", "istio-envoy"), Trailer: header("grpc-status", "0"),
		Attempts: 1, Details: "via_upstream", BytesReceived: 3, BytesSent: 295,
		Cluster: &l7.Cluster{Name: "inbound-vip|9080|http|reviews.default.svc.cluster.local", StatName: "alt"}, ClusterName: "inbound-vip|9080|http|reviews.default.svc.cluster.local",
		Endpoint:     &l7.Endpoint{Address: netip.MustParseAddrPort("10.0.1.7:9080"), Internal: "connect_originate", Hostname: "pod-7"},
		UpstreamHost: "envoy://connect_originate/10.0.1.7:9080", UpstreamIdentity: "spiffe://cluster.local/ns/default/sa/reviews",
		RouteName: "default", TimeToFirstByte: 11 * time.Millisecond, RequestDone: time.Millisecond,
	}
}

func TestText(t *testing.T) {
	grpc := sample()
	grpc.GRPC, grpc.GRPCStatus = true, 5
	refused := &proxy.Record{Kind: proxy.KindConnection, Flags: l7.FlagUpstreamConnectionFailure | l7.FlagUpstreamRetryLimit, Details: "a b", Termination: "no host", UpstreamFailure: "delayed connect error: 111"}
	for _, tt := range []struct {
		format, want string
		r            *proxy.Record
	}{
		{meshFormat, `[2026-11-21T07:04:39.123Z] "GET /reviews/0?x=y HTTP/1.1" 200 - via_upstream - "-" 3 295 12 11 "10.0.0.1" "curl/8" "id-1" "reviews:9080" "envoy://connect_originate/10.0.1.7:9080" inbound-vip|9080|http|reviews.default.svc.cluster.local envoy://internal_client_address/ 10.96.0.9:9080 10.0.0.5:41234 - default` + "\n", nil},
		{meshFormat, `[0001-01-01T00:00:00.000Z] "- - -" 0 UF,URX - - "delayed_connect_error:_111" 0 0 0 - "-" "-" "-" "-" "-" - - - - - -` + "\n", refused},
		{defaultFormat, `[2026-11-21T07:04:39.123Z] "GET /reviews/0?x=y HTTP/1.1" 200 - 3 295 12 11 "10.0.0.1" "curl/8" "id-1" "reviews:9080" "envoy://connect_originate/10.0.1.7:9080"` + "\n", nil},
		{"plain, 100%%", "plain, 100%", nil},
		{"%PROTOCOL%%PROTOCOL%", "HTTP/1.1HTTP/1.1", nil},
		{"%REQ(:PATH)% %REQ(:path):5% %REQ(NOT-THERE?USER-AGENT):4% %REQ(NOT-THERE?OTHER)%", "/v2/reviews/0?x=y /v2/r curl -", nil},
		{"%REQ_WITHOUT_QUERY(:PATH)% %REQ(:SCHEME)% %REQ(:METHOD)%", "/v2/reviews/0 http GET", nil},
		{"%RESP(SERVER)% %RESP(:STATUS)% %TRAILER(grpc-status)% %TRAILER(x)%", "istio-envoy 200 0 -", nil},
		{"%REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "1 11 1", nil},
		{"%UPSTREAM_CLUSTER% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT% %UPSTREAM_HOST_NAME%", "alt 10.0.1.7 9080 - pod-7", nil},
		{"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%", "10.0.0.5 41234 10.96.0.9 9080", nil},
		{"%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%", "spiffe://cluster.local/ns/default/sa/productpage spiffe://cluster.local/ns/default/sa/waypoint", nil},
		{"%FILTER_STATE(colour)% %FILTER_STATE(colour:PLAIN)% %FILTER_STATE(none:PLAIN)% %DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%", `"green" green - me`, nil},
		{"%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:groups)% %DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub:x)%", `["a"] -`, nil},
		{"%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%", "NotFound NOT_FOUND 5 5", grpc},
		{"%GRPC_STATUS% %DYNAMIC_METADATA(a:b)% %METADATA(ROUTE:istio:config)%", "- - -", nil},
		{"%CEL(response.code + 1)% %CEL(request.headers['none'])% %CEL(request.url_path)%", "201 - /v2/reviews/0", nil},
		{"%FILTER_STATE(downstream_peer:FIELD:identity)% %FILTER_STATE(other:FIELD:a)% %TRACE_ID% %VIRTUAL_CLUSTER_NAME%", "spiffe://cluster.local/ns/default/sa/productpage - - -", nil},
		{"%FILTER_CHAIN_NAME% %CONNECTION_ID% %ACCESS_LOG_TYPE%", "inbound-vip|9080||reviews.default.svc.cluster.local-http 7 DownstreamEnd", nil},
		{"%START_TIME(%Y/%m/%dT%H:%M:%S.%3f%z)% %START_TIME(%s)%", "2026/11/21T07:04:39.123+0000 1795244679", nil},
		{"%START_TIME(%f|%1f|%6f|%T %Z %% %b)% %EMIT_TIME%", "123456789|1|123456|07:04:39 UTC % Nov 2026-11-21T07:04:39.135Z", nil},
	} {
		compiled, err := compileText(tt.format, false)
		if err != nil {
			t.Errorf("%q: %v", tt.format, err)
			continue
		}
		r := tt.r
		if r == nil {
			r = sample()
		}
		if got := string(compiled.appendTo(nil, r)); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.format, got, tt.want)
		}
	}
}

func TestOmitEmpty(t *testing.T) {
	compiled, err := compileText("<%REQ(X)%>", true)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(compiled.appendTo(nil, sample())); got != "<>" {
		t.Errorf("%q", got)
	}
}

func TestTextRefused(t *testing.T) {
	for format, want := range map[string]string{
		"a %": "offset 2: no operator", "%req(x)%": "no operator", "%PROTOCOL": "does not end in %", "%REQ(x%": "do not end in )%",
		"%NOSUCH%": "NOSUCH%: this operator is not supported", "%REQ()%": "want HEADER", "%REQ(a?b?c)%": "want HEADER", "%PROTOCOL(x)%": "no parameters",
		"%START_TIME(%Q)%": "%Q is not supported", "%START_TIME(%)%": "ends in %", "%START_TIME(%3S)%": "%3S is not supported",
		"%GRPC_STATUS(X)%": "want CAMEL_STRING", "%METADATA(CLUSTER:a:b)%": "want ROUTE", "%ENVIRONMENT(HOME)%": "environment is not shown",
		"%REQ(x):y%": "do not end in )%", "%CEL(reques.path)%": "undeclared reference", "%CEL()%": "want an expression", "%DYNAMIC_METADATA()%": "want NAMESPACE", "%FILTER_STATE(a:FIELD)%": "want KEY",
	} {
		if _, err := compileText(format, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", format, err, want)
		}
	}
}

func TestJSON(t *testing.T) {
	fields, err := structpb.NewStruct(map[string]any{
		"code": "%RESPONSE_CODE%", "both": "%RESPONSE_CODE% %REQ(X)%", "none": "%REQ(X)%", "agent": "%REQ(USER-AGENT)%",
		"odd \"key\"": "%REQ(ODD)%", "nested": map[string]any{"z": "%PROTOCOL%", "a": []any{"%BYTES_SENT%", "%REQ(X)%", 1.5, true, nil}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := sample()
	r.Header.Add("odd", "q\"b\\t\té\xff")
	for _, tt := range []struct {
		omit bool
		want string
	}{
		{false, `{"agent":"curl/8","both":"200 -","code":200,"nested":{"a":[295,null,1.5,true,null],"z":"HTTP/1.1"},"none":null,"odd \"key\"":"q\"b\\t\u0009é�"}` + "\n"},
		{true, `{"agent":"curl/8","both":"200 ","code":200,"nested":{"a":[295,null,1.5,true,null],"z":"HTTP/1.1"},"odd \"key\"":"q\"b\\t\u0009é�"}` + "\n"},
	} {
		format, err := compileFormat(&corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields}, OmitEmptyValues: tt.omit})
		if err != nil {
			t.Fatal(err)
		}
		got := format.appendTo(nil, r)
		if string(got) != tt.want {
			t.Errorf(" got %s\nwant %s", got, tt.want)
		}
		if !json.Valid(got) {
			t.Errorf("not JSON: %s", got)
		}
	}
	bad, _ := structpb.NewStruct(map[string]any{"a": map[string]any{"b": "%NOSUCH%"}})
	if _, err := compileJSON(bad, false); err == nil || !strings.Contains(err.Error(), `"a": "b": `) {
		t.Errorf("%v", err)
	}
}

// Whatever compiles makes a line, and JSON whatever the values are.
func FuzzFormat(f *testing.F) {
	for _, seed := range []string{meshFormat, "%REQ(a?b):3%", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3f%z)%", "%%", "%PROTOCOL", "%RESP(x)%%", "%REQ(a)b):2%"} {
		f.Add(seed, "value", false)
	}
	f.Add("%REQ(x)%", "\x00\"\\\xf0\x28", true)
	f.Fuzz(func(t *testing.T, format, value string, omit bool) {
		r := sample()
		r.Header.Add("x", value)
		compiled, err := compileText(format, omit)
		if err != nil {
			return
		}
		compiled.appendTo(nil, r)
		compiled.appendTo(nil, &proxy.Record{})
		object, err := compileJSON(&structpb.Struct{Fields: map[string]*structpb.Value{value: structpb.NewStringValue(format), "x": structpb.NewStringValue("%REQ(X)%")}}, omit)
		if err != nil {
			t.Fatalf("a format that text takes is refused in JSON: %v", err)
		}
		line, _ := object.appendTo(nil, r)
		if !json.Valid(line) {
			t.Fatalf("not JSON: %q", line)
		}
	})
}

func BenchmarkMeshFormat(b *testing.B) {
	compiled, err := compileText(meshFormat, false)
	if err != nil {
		b.Fatal(err)
	}
	r := sample()
	b.ReportAllocs()
	var line []byte
	for b.Loop() {
		line = compiled.appendTo(line[:0], r)
	}
}
