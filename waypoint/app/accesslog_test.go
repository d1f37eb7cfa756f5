package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	reqwithoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// steady are the operators whose values are the same on both engines.
func steady() []string {
	return []string{
		"REQ(:METHOD)", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", "REQ(:PATH):5", "REQ(:AUTHORITY)", "REQ(:SCHEME)", "REQ(X-TWICE)", "REQ(X-EMPTY)", "REQ(X-NONE)",
		"REQ(USER-AGENT)", "REQ_WITHOUT_QUERY(:PATH)", "PROTOCOL", "RESPONSE_CODE", "RESPONSE_FLAGS", "RESPONSE_CODE_DETAILS",
		"CONNECTION_TERMINATION_DETAILS", "BYTES_RECEIVED", "BYTES_SENT", "RESP(X-ANSWER)", "RESP(SERVER)", "RESP(:STATUS)", "RESP(CONTENT-TYPE)",
		"UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
		"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "REQUESTED_SERVER_NAME", "ROUTE_NAME",
		"DOWNSTREAM_PEER_URI_SAN", "UPSTREAM_TRANSPORT_FAILURE_REASON", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "GRPC_STATUS", "GRPC_STATUS(SNAKE_STRING)", "GRPC_STATUS_NUMBER",
		"FILTER_CHAIN_NAME", "METADATA(ROUTE:istio:config)", "DYNAMIC_METADATA(a:b)", "FILTER_STATE(none)", "START_TIME(%Y-%m)", "ACCESS_LOG_TYPE",
	}
}

// logged is the gateway's listener with logs of all steady operators.
func logged(t *testing.T, l *listenerv3.Listener, dir string) {
	t.Helper()
	manager := &hcmv3.HttpConnectionManager{}
	if err := l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	manager.AccessLog = logs(t, dir)
	l.FilterChains[0].Name = "chain"
	l.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, manager)}
}

// tcpListener is a listener that forwards bytes, with the same logs.
func tcpListener(t *testing.T, name, address, cluster, dir string) *listenerv3.Listener {
	t.Helper()
	forward := &tcpv3.TcpProxy{StatPrefix: name, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster}, AccessLog: logs(t, dir)}
	return &listenerv3.Listener{Name: name, Address: socket(address), FilterChains: []*listenerv3.FilterChain{{Name: name, Filters: []*listenerv3.Filter{{
		Name: "envoy.filters.network.tcp_proxy", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, forward)},
	}}}}}
}

// logs has a text log and a JSON log, each also without what is empty.
func logs(t *testing.T, dir string) []*accesslogv3.AccessLog {
	t.Helper()
	var text strings.Builder
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, operator := range steady() {
		fmt.Fprintf(&text, "%s=%%%s%% ", strings.ReplaceAll(operator, "%", "%%"), operator)
		fields.Fields[operator] = structpb.NewStringValue("%" + operator + "%")
	}
	fields.Fields["mixed"] = structpb.NewStringValue("%RESPONSE_CODE% \"%REQ(X-NONE)%\" %REQ(X-ODD)%")
	write := func(name string, format *corev3.SubstitutionFormatString) *accesslogv3.AccessLog {
		format.Formatters = []*corev3.TypedExtensionConfig{
			{Name: "envoy.formatter.req_without_query", TypedConfig: pack(t, &reqwithoutqueryv3.ReqWithoutQuery{})},
			{Name: "envoy.formatter.metadata", TypedConfig: pack(t, &metadatav3.Metadata{})},
		}
		return &accesslogv3.AccessLog{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(t, &filev3.FileAccessLog{
			Path: filepath.Join(dir, name), AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: format},
		})}}
	}
	inline := &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text.String() + "\n"}}
	return []*accesslogv3.AccessLog{
		write("text", &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline}}),
		write("omitted", &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline}, OmitEmptyValues: true}),
		write("json", &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields}}),
		write("json-omitted", &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields}, OmitEmptyValues: true}),
	}
}

// logRoutes has an answer of upstream, one of our own, one that no host gives, one that takes too long, and what is not there.
func logRoutes() *routev3.RouteConfiguration {
	out := routes("http.8080", "/good", reviews)
	add := func(prefix string, r *routev3.Route) {
		r.Name, r.Match = prefix, &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + prefix}}
		out.VirtualHosts[0].Routes = append(out.VirtualHosts[0].Routes, r)
	}
	to := func(cluster string) *routev3.RouteAction {
		return &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}, Timeout: durationpb.New(0)}
	}
	add("direct", &routev3.Route{Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: 418, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "short"}},
	}}})
	rewritten := to(reviews)
	rewritten.PrefixRewrite = "/new"
	add("rewritten", &routev3.Route{Action: &routev3.Route_Route{Route: rewritten}})
	add("refused", &routev3.Route{Action: &routev3.Route_Route{Route: to("refused")}})
	add("empty", &routev3.Route{Action: &routev3.Route_Route{Route: to("empty")}})
	add("nowhere", &routev3.Route{Action: &routev3.Route_Route{Route: to("nowhere")}})
	late := to(reviews)
	late.Timeout = durationpb.New(time.Second)
	add("slow", &routev3.Route{Action: &routev3.Route_Route{Route: late}})
	return out
}

// lines of the log files of one engine, by file.
type lines map[string][]string

// names of the log files.
func logFiles() []string { return []string{"text", "omitted", "json", "json-omitted"} }

// readLines waits until each file has that many different ones with a text, and returns them. What is repeated counts once: Go's
// net.Dial dials again when a connection is reset at once.
func readLines(t *testing.T, dir, with string, want int) lines {
	t.Helper()
	out := lines{}
	for _, name := range logFiles() {
		eventually(t, "the lines are written", func() error {
			text, err := os.ReadFile(filepath.Join(dir, name))
			all := slices.DeleteFunc(slices.Collect(strings.Lines(string(text))), func(line string) bool { return !strings.Contains(line, with) })
			out[name] = slices.Compact(all)
			if err == nil && len(out[name]) < want {
				err = errors.New("not all yet")
			}
			return err
		})
	}
	return out
}

// agree compares the lines of both engines.
func agree(t *testing.T, ours, envoys lines) {
	t.Helper()
	for _, name := range logFiles() {
		if len(ours[name]) != len(envoys[name]) || len(ours[name]) == 0 {
			t.Errorf("%s: %d lines, Envoy has %d", name, len(ours[name]), len(envoys[name]))
			continue
		}
		for i, want := range envoys[name] {
			if got := ours[name][i]; got != want {
				t.Errorf("%s:\n ours  %s Envoy %s", name, got, want)
			}
		}
	}
}

// A request leaves the same line with our engine and with a real Envoy.
func TestAccessLogsAgree(t *testing.T) {
	both := map[bool]lines{} // by whether the engine is Envoy
	engines(t, func(t *testing.T, g *gateway) {
		dir := t.TempDir()
		l := gatewayListener(t, strings.TrimPrefix(g.url, "http://"), "http.8080", g.logPath)
		logged(t, l, dir)
		g.set(t, map[string]proto.Message{
			"listener 0.0.0.0_8080": l, "route http.8080": logRoutes(), "endpoints " + reviews: endpoints(t, reviews, logBackend(t)),
			"cluster refused": edsCluster(t, "refused"), "endpoints refused": endpoints(t, "refused", refusing(t)),
			"cluster empty": edsCluster(t, "empty"), "endpoints empty": endpointsOf("empty"),
		})
		g.ready(t)
		eventually(t, "the configuration is in force", func() error {
			if _, err := get(g.url+"/direct", http.StatusTeapot); err != nil {
				return err
			}
			_, err := os.Stat(filepath.Join(dir, "text"))
			return err
		})
		ask(t, g.url)
		found := readLines(t, dir, "mark/", requests)
		for _, all := range found {
			slices.SortFunc(all, func(a, b string) int { return strings.Compare(mark(a), mark(b)) })
		}
		both[g.cfg.Envoy != nil] = found
	})
	agree(t, both[false], both[true])
}

// So does a connection.
func TestConnectionLogsAgree(t *testing.T) {
	both := map[bool]lines{}
	engines(t, func(t *testing.T, g *gateway) {
		dir := t.TempDir()
		good, refused, empty := freeAddress(t), freeAddress(t), freeAddress(t)
		g.set(t, map[string]proto.Message{
			"listener good": tcpListener(t, "good", good, "echo", dir), "listener refused": tcpListener(t, "refused", refused, "refused", dir),
			"listener empty": tcpListener(t, "empty", empty, "empty", dir),
			"cluster echo":   edsCluster(t, "echo"), "endpoints echo": endpoints(t, "echo", echo(t)),
			"cluster refused": edsCluster(t, "refused"), "endpoints refused": endpoints(t, "refused", refusing(t)),
			"cluster empty": edsCluster(t, "empty"), "endpoints empty": endpointsOf("empty"),
		})
		g.ready(t)
		for i, address := range []string{good, refused, empty} {
			var answer string
			eventually(t, address, func() error {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					return err
				}
				defer conn.Close()
				// It may have been reset by now, which is an answer too.
				_, _ = io.WriteString(conn, "hello")
				_ = conn.(*net.TCPConn).CloseWrite()
				text, _ := io.ReadAll(conn)
				answer = string(text)
				return nil
			})
			if want := map[int]string{0: "hello"}[i]; answer != want {
				t.Errorf("connection %d: %q, want %q", i, answer, want)
			}
			both[g.cfg.Envoy != nil] = readLines(t, dir, "", i+1)
		}
	})
	agree(t, both[false], both[true])
}

// mark is the part of a line that names the request: lines are written in the order in which requests end.
func mark(line string) string {
	_, rest, _ := strings.Cut(line, "mark/")
	return rest[:2]
}

// requests is how many ask sends.
const requests = 10

// ask sends requests of all kinds, one after the other.
func ask(t *testing.T, url string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	for i, path := range [requests]string{
		"/good?a=b", "/rewritten/x?y=z", "/direct", "/none", "/refused", "/empty", "/nowhere", "/slow", "/good/post", "/good/grpc",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		method, body := http.MethodGet, io.Reader(http.NoBody)
		if strings.HasSuffix(path, "post") {
			method, body = http.MethodPost, strings.NewReader("twelve bytes")
		}
		r, err := http.NewRequestWithContext(ctx, method, url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "reviews.example.com"
		r.Header = http.Header{
			"User-Agent": {fmt.Sprint("mark/", i)}, "X-Twice": {"one", "two"}, "X-Empty": {""}, "X-Odd": {"q\"uo\\te \xc3\xa9"}, "X-Forwarded-For": {"192.0.2.1"},
		}
		if strings.HasSuffix(path, "grpc") {
			r.Header.Set("Content-Type", "application/grpc")
		}
		if response, err := transport.RoundTrip(r); err != nil {
			t.Errorf("%s: %v", path, err)
		} else {
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			response.Body.Close()
		}
		cancel()
	}
}
