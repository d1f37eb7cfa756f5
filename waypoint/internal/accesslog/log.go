package accesslog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	otellogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/cel/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	reqwithoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/export"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// defaultFormat is a line when the configuration names no format. It is Envoy's; the control plane of the field names its own.
const defaultFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" ` +
	`"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

// Open opens a file for appending. "/dev/stdout" and "/dev/stderr" are the process's own, which closing leaves open.
func Open(path string) (io.WriteCloser, error) {
	switch path {
	case "/dev/stdout":
		return stays{os.Stdout}, nil
	case "/dev/stderr":
		return stays{os.Stderr}, nil
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

// stays is a file that is not closed.
type stays struct{ io.Writer }

// Close implements io.Closer.
func (stays) Close() error { return nil }

// Config of a Log.
type Config struct {
	// Open opens files; nil is [Open].
	Open func(path string) (io.WriteCloser, error)
	// Listener finds the settings of connections for which no chain was found.
	Listener func(name string) *l7.Listener
	Log      *slog.Logger

	// Send sends to collectors; Node, Cluster and Zone are what they are told of the proxy.
	Send                export.Send
	Node, Cluster, Zone string
}

// Log writes access logs as the listeners' configuration says.
type Log struct {
	config  Config
	dropped atomic.Uint64
	buffers sync.Pool // of *[]byte

	// loggers are by *l7.Chain or *l7.Listener, until Forget; it spares compiling.
	loggers sync.Map

	mu       sync.Mutex // guards the rest
	compiled map[string]*logger
	sinks    map[string]*sink
	batchers map[string]*export.Batcher

	collected export.Counters
}

// format makes a line of a record.
type format interface {
	appendTo(dst []byte, r *proxy.Record) []byte
}

// logger is one compiled access log.
type logger struct {
	filter filter
	format format
	path   string
	sink   *sink

	otel  *otelRecord     // instead of format and sink
	batch *export.Batcher // of otel
}

// New makes a Log; Close ends it.
func New(config Config) *Log {
	if config.Open == nil {
		config.Open = Open
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Log{
		config: config, compiled: map[string]*logger{}, sinks: map[string]*sink{}, batchers: map[string]*export.Batcher{},
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }},
	}
}

// Dropped is how many lines were lost because a file was too slow.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Write logs a record. It keeps nothing of it.
func (l *Log) Write(r *proxy.Record) {
	loggers := l.of(r)
	if len(loggers) == 0 {
		return
	}
	buffer := l.buffers.Get().(*[]byte)
	for _, one := range loggers {
		if one.filter != nil && !one.filter(r) {
			continue
		}
		if one.otel != nil {
			*buffer = one.otel.appendTo((*buffer)[:0], r)
			one.batch.Add(*buffer)
			continue
		}
		*buffer = one.format.appendTo((*buffer)[:0], r)
		one.sink.write(*buffer)
	}
	l.buffers.Put(buffer)
}

// of returns the loggers of the record's chain.
func (l *Log) of(r *proxy.Record) []*logger {
	var key any = r.Chain
	if r.Chain == nil {
		if l.config.Listener == nil {
			return nil
		}
		listener := l.config.Listener(r.Listener)
		if listener == nil {
			return nil
		}
		key = listener
	}
	if found, ok := l.loggers.Load(key); ok {
		return found.([]*logger)
	}
	var loggers []*logger
	for _, p := range settings(key) {
		one, err := l.logger(p)
		if err != nil { // Check refused it before it came here, or the file cannot be opened
			l.config.Log.Error("access log", "error", err)
			continue
		}
		loggers = append(loggers, one)
	}
	l.loggers.Store(key, loggers)
	return loggers
}

// settings are the access logs of a chain or of a listener.
func settings(key any) []*accesslogv3.AccessLog {
	switch of := key.(type) {
	case *l7.Listener:
		return of.AccessLogs
	case *l7.Chain:
		switch {
		case of.HTTP != nil:
			return of.HTTP.AccessLogs
		case of.TCP != nil:
			return of.TCP.AccessLogs
		case of.Terminate != nil && of.Terminate.HTTP != nil:
			return of.Terminate.HTTP.AccessLogs
		}
	}
	return nil
}

// logger compiles settings, once for equal ones, and opens their file.
func (l *Log) logger(p *accesslogv3.AccessLog) (*logger, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.compiled[string(content)]; known != nil {
		return known, nil
	}
	one, err := compile(p)
	if err != nil {
		return nil, err
	}
	if one.otel != nil {
		one.batch = l.collectorLocked(one.otel)
		l.compiled[string(content)] = one
		return one, nil
	}
	if one.sink = l.sinks[one.path]; one.sink == nil {
		out, err := l.config.Open(one.path)
		if err != nil {
			return nil, fmt.Errorf("open the access log: %w", err)
		}
		one.sink = newSink(out, &l.dropped, func(err error) {
			l.config.Log.Error("write the access log", "path", one.path, "error", err)
		})
		l.sinks[one.path] = one.sink
	}
	l.compiled[string(content)] = one
	return one, nil
}

// Forget drops what is kept for chains that no longer serve. Call it when listeners have changed.
func (l *Log) Forget() { l.loggers.Clear() }

// Close writes what waits, and closes the files.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var problems []error
	for _, s := range l.sinks {
		problems = append(problems, s.close())
	}
	clear(l.sinks)
	for _, b := range l.batchers {
		b.Close()
	}
	clear(l.batchers)
	return errors.Join(problems...)
}

// Check is whether the access logs of a listener can be honoured. The error names the chain and the field.
func Check(listener *l7.Listener) error {
	for i, p := range listener.AccessLogs {
		if _, err := compile(p); err != nil {
			return fmt.Errorf("access_log[%d]: %w", i, err)
		}
	}
	chains := listener.Chains
	if listener.Default != nil {
		chains = append(chains[:len(chains):len(chains)], listener.Default)
	}
	for _, ch := range chains {
		for i, p := range settings(ch) {
			if _, err := compile(p); err != nil {
				return fmt.Errorf("filter chain %q: access_log[%d]: %w", ch.Name, i, err)
			}
		}
	}
	return nil
}

// compile reads one access log without opening its file.
func compile(p *accesslogv3.AccessLog) (*logger, error) {
	one := &logger{}
	var err error
	if one.filter, err = compileFilter(p.GetFilter()); err != nil {
		return nil, err
	}
	message, err := p.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("typed_config: %w", err)
	}
	var given *corev3.SubstitutionFormatString
	switch m := message.(type) {
	case *filev3.FileAccessLog:
		one.path = m.GetPath()
		if given, err = fileFormat(m); err != nil {
			return nil, err
		}
	case *streamv3.StdoutAccessLog:
		one.path, given = "/dev/stdout", m.GetLogFormat()
	case *streamv3.StderrAccessLog:
		one.path, given = "/dev/stderr", m.GetLogFormat()
	case *otellogv3.OpenTelemetryAccessLogConfig:
		one.otel, err = compileOTel(m)
		return one, err
	default:
		return nil, fmt.Errorf("typed_config: %s is not supported: use a file", p.GetTypedConfig().GetTypeUrl())
	}
	if one.format, err = compileFormat(given); err != nil {
		return nil, err
	}
	return one, nil
}

// fileFormat translates the deprecated ways to give a format.
func fileFormat(m *filev3.FileAccessLog) (*corev3.SubstitutionFormatString, error) {
	switch f := m.GetAccessLogFormat().(type) {
	case nil:
		return nil, nil
	case *filev3.FileAccessLog_LogFormat:
		return f.LogFormat, nil
	case *filev3.FileAccessLog_Format:
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: f.Format}}, //nolint:staticcheck // peers still send it
		}}, nil
	case *filev3.FileAccessLog_JsonFormat:
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: f.JsonFormat}}, nil //nolint:staticcheck // peers still send it
	}
	return nil, errors.New("typed_config.access_log_format: not supported")
}

func compileFormat(f *corev3.SubstitutionFormatString) (format, error) {
	for i, extension := range f.GetFormatters() {
		switch url := extension.GetTypedConfig().GetTypeUrl(); url {
		case "type.googleapis.com/" + string((&celv3.Cel{}).ProtoReflect().Descriptor().FullName()),
			"type.googleapis.com/" + string((&metadatav3.Metadata{}).ProtoReflect().Descriptor().FullName()),
			"type.googleapis.com/" + string((&reqwithoutqueryv3.ReqWithoutQuery{}).ProtoReflect().Descriptor().FullName()):
		default:
			return nil, fmt.Errorf("log_format.formatters[%d]: %s is not supported", i, url)
		}
	}
	switch kind := f.GetFormat().(type) {
	case nil:
		return compileText(defaultFormat, f.GetOmitEmptyValues())
	case *corev3.SubstitutionFormatString_TextFormat:
		return compileText(kind.TextFormat, f.GetOmitEmptyValues()) //nolint:staticcheck // peers still send it
	case *corev3.SubstitutionFormatString_TextFormatSource:
		inline, ok := kind.TextFormatSource.GetSpecifier().(*corev3.DataSource_InlineString)
		if !ok {
			return nil, errors.New("log_format.text_format_source: only inline_string is supported")
		}
		return compileText(inline.InlineString, f.GetOmitEmptyValues())
	case *corev3.SubstitutionFormatString_JsonFormat:
		o, err := compileJSON(kind.JsonFormat, f.GetOmitEmptyValues())
		if err != nil {
			return nil, fmt.Errorf("log_format.json_format: %w", err)
		}
		return jsonLine{o}, nil
	}
	return nil, errors.New("log_format: not supported")
}

// jsonLine is an object on a line of its own.
type jsonLine struct{ *object }

func (j jsonLine) appendTo(dst []byte, r *proxy.Record) []byte {
	dst, _ = j.object.appendTo(dst, r)
	return append(dst, '\n')
}
