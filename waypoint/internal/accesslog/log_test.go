package accesslog

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func typed(t *testing.T, m proto.Message, filter *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	t.Helper()
	config, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return &accesslogv3.AccessLog{Filter: filter, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config}}
}

func file(t *testing.T, path, format string, filter *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return typed(t, &filev3.FileAccessLog{Path: path, AccessLogFormat: &filev3.FileAccessLog_LogFormat{
		LogFormat: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: format}},
		}},
	}}, filter)
}

func flags(names ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: names}}}
}

func status(op accesslogv3.ComparisonFilter_Op, value uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: value}},
	}}}
}

// Each kind of chain has its settings, and a connection without a chain has the listener's.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	other := filepath.Join(t.TempDir(), "other.log")
	http := &l7.Chain{HTTP: &l7.HTTPManager{AccessLogs: []*accesslogv3.AccessLog{
		file(t, path, "http %RESPONSE_CODE%\n", nil), file(t, other, "error %RESPONSE_CODE%\n", status(accesslogv3.ComparisonFilter_GE, 500)),
	}}}
	tcp := &l7.Chain{TCP: &l7.TCPProxy{AccessLogs: []*accesslogv3.AccessLog{file(t, path, "tcp\n", nil)}}}
	tunnel := &l7.Chain{Terminate: &l7.Terminate{HTTP: &l7.HTTPManager{AccessLogs: []*accesslogv3.AccessLog{file(t, path, "tunnel\n", nil)}}}}
	listener := &l7.Listener{AccessLogs: []*accesslogv3.AccessLog{file(t, path, "none %RESPONSE_FLAGS%\n", flags("NR"))}}
	log := New(Config{Listener: func(name string) *l7.Listener {
		if name == "x" {
			return listener
		}
		return nil
	}})
	for _, r := range []*proxy.Record{
		{Chain: http, Status: 200},
		{Chain: http, Status: 503},
		{Chain: tcp, Kind: proxy.KindConnection},
		{Chain: tunnel, Kind: proxy.KindTunnel},
		{Listener: "x", Flags: l7.FlagNoRouteFound},
		{Listener: "x"},
		{Listener: "unknown"},
		{Chain: &l7.Chain{}},
	} {
		log.Write(r)
	}
	log.Forget()
	log.Write(&proxy.Record{Chain: http, Status: 201})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	log.Write(&proxy.Record{Chain: http, Status: 202})
	for path, want := range map[string]string{path: "http 200\nhttp 503\ntcp\ntunnel\nnone NR\nhttp 201\n", other: "error 503\n"} {
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if log.Dropped() != 1 {
		t.Errorf("%d lines dropped, want the one after the end", log.Dropped())
	}
}

func TestFilters(t *testing.T) {
	and := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{
		Filters: []*accesslogv3.AccessLogFilter{status(accesslogv3.ComparisonFilter_EQ, 503), flags()},
	}}}
	or := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: &accesslogv3.OrFilter{
		Filters: []*accesslogv3.AccessLogFilter{status(accesslogv3.ComparisonFilter_LE, 200), flags("UF")},
	}}}
	duration := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_DurationFilter{DurationFilter: &accesslogv3.DurationFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: accesslogv3.ComparisonFilter_GE, Value: &corev3.RuntimeUInt32{DefaultValue: 10}},
	}}}
	health := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_NotHealthCheckFilter{}}
	for _, tt := range []struct {
		name   string
		filter *accesslogv3.AccessLogFilter
		r      proxy.Record
		want   bool
	}{
		{"any flag", flags(), proxy.Record{Flags: l7.FlagNoCluster}, true},
		{"no flag", flags(), proxy.Record{}, false},
		{"one of the flags", flags("UF", "URX"), proxy.Record{Flags: l7.FlagUpstreamRetryLimit | l7.FlagDelayInjected}, true},
		{"another flag", flags("UF"), proxy.Record{Flags: l7.FlagUpstreamRetryLimit}, false},
		{"and", and, proxy.Record{Status: 503, Flags: l7.FlagNoCluster}, true},
		{"not and", and, proxy.Record{Status: 503}, false},
		{"or", or, proxy.Record{Status: 503, Flags: l7.FlagUpstreamConnectionFailure}, true},
		{"not or", or, proxy.Record{Status: 503}, false},
		{"slow", duration, proxy.Record{Duration: 10 * time.Millisecond}, true},
		{"fast", duration, proxy.Record{Duration: 9 * time.Millisecond}, false},
		{"no health checks", health, proxy.Record{}, true},
		{"not equal", status(accesslogv3.ComparisonFilter_NE, 200), proxy.Record{Status: 200}, false},
	} {
		f, err := compileFilter(tt.filter)
		if err != nil || f(&tt.r) != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	cel, err := anypb.New(&grpcv3.HttpGrpcAccessLogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	withCEL := &filev3.FileAccessLog{Path: "/x", AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
		Formatters: []*corev3.TypedExtensionConfig{{Name: "envoy.formatter.cel", TypedConfig: cel}},
	}}}
	for name, tt := range map[string]struct {
		log  *accesslogv3.AccessLog
		want string
	}{
		"another sink":    {typed(t, &grpcv3.HttpGrpcAccessLogConfig{}, nil), "HttpGrpcAccessLogConfig is not supported"},
		"a formatter":     {typed(t, withCEL, nil), "formatters[0]: type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig is not supported"},
		"an operator":     {file(t, "/x", "%NOSUCH%", nil), "NOSUCH"},
		"a filter":        {file(t, "/x", "", &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{}}), "filter"},
		"no typed config": {&accesslogv3.AccessLog{}, "typed_config"},
	} {
		t.Run(name, func(t *testing.T) {
			good := typed(t, &streamv3.StdoutAccessLog{}, nil)
			l := &l7.Listener{Chains: []*l7.Chain{{Name: "c", HTTP: &l7.HTTPManager{AccessLogs: []*accesslogv3.AccessLog{good, tt.log}}}}}
			if err := Check(l); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `filter chain "c": access_log[1]`) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			l = &l7.Listener{AccessLogs: []*accesslogv3.AccessLog{good}, Default: &l7.Chain{TCP: &l7.TCPProxy{AccessLogs: []*accesslogv3.AccessLog{good}}}}
			if err := Check(l); err != nil {
				t.Error(err)
			}
		})
	}
}

// slow is a file that takes nothing until it is released.
type slow struct {
	release chan struct{}
	mu      sync.Mutex
	got     bytes.Buffer
}

func (s *slow) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

func (s *slow) Close() error { return nil }

// A file that does not take lines delays nobody and costs bounded memory.
func TestSlowFile(t *testing.T) {
	out := &slow{release: make(chan struct{})}
	var dropped atomic.Uint64
	s := newSink(out, &dropped, func(err error) { t.Error(err) })
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range 3 * sinkLimit / len(line) {
		s.write(line)
	}
	if n := dropped.Load(); n == 0 {
		t.Error("nothing was dropped")
	}
	close(out.release)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if written := uint64(out.got.Len() / len(line)); written+dropped.Load() != 3*sinkLimit/uint64(len(line)) {
		t.Errorf("%d written, %d dropped", written, dropped.Load())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }
func (broken) Close() error              { return nil }

func TestBrokenFile(t *testing.T) {
	failures := make(chan error, 10)
	s := newSink(broken{}, &atomic.Uint64{}, func(err error) { failures <- err })
	s.write([]byte("x\n"))
	if err := <-failures; err == nil {
		t.Error("no failure")
	}
	s.close()
}

func TestUnopenedFile(t *testing.T) {
	log := New(Config{Open: func(string) (io.WriteCloser, error) { return nil, errors.New("no such directory") }})
	log.Write(&proxy.Record{Chain: &l7.Chain{TCP: &l7.TCPProxy{AccessLogs: []*accesslogv3.AccessLog{file(t, "/x/y", "", nil)}}}})
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}
