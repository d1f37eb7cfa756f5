package accesslog

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	otellogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/export"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

// otelRecord makes log records of OpenTelemetry.
type otelRecord struct {
	to      tracing.Provider
	logName string
	builtin bool // whether the resource says who the proxy is
	more    []export.Attribute

	body       value
	attributes []keyed
}

// value makes an AnyValue: text, or a list of names and values.
type value struct {
	text   *text
	fields []keyed
	list   []value
}

type keyed struct {
	key   string
	value value
}

func compileOTel(m *otellogv3.OpenTelemetryAccessLogConfig) (*otelRecord, error) {
	o := &otelRecord{logName: m.GetLogName(), builtin: !m.GetDisableBuiltinLabels()}
	service := m.GetGrpcService()
	if common := m.GetCommonConfig(); common != nil { //nolint:staticcheck // the older form, which control planes still send
		o.logName = common.GetLogName()
		if common.GetGrpcService() != nil {
			service = common.GetGrpcService()
		}
	}
	switch {
	case m.GetHttpService() != nil:
		return nil, errors.New("typed_config.http_service: is not supported: use grpc_service")
	case len(m.GetCustomTags()) > 0 || len(m.GetResourceDetectors()) > 0:
		return nil, errors.New("typed_config: custom_tags and resource_detectors are not supported")
	case service.GetEnvoyGrpc() == nil:
		return nil, errors.New("typed_config.common_config.grpc_service: envoy_grpc is required")
	}
	if err := o.to.GRPC(service); err != nil {
		return nil, fmt.Errorf("typed_config.common_config.grpc_service: %w", err)
	}
	o.to.Path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
	for _, a := range m.GetResourceAttributes().GetValues() {
		o.more = append(o.more, export.Attribute{Key: a.GetKey(), Value: a.GetValue().GetStringValue()})
	}
	var err error
	if o.body, err = compileValue(m.GetBody()); err != nil {
		return nil, fmt.Errorf("typed_config.body: %w", err)
	}
	if o.attributes, err = compileKeyed(m.GetAttributes().GetValues()); err != nil {
		return nil, fmt.Errorf("typed_config.attributes: %w", err)
	}
	return o, nil
}

func compileValue(v *commonv1.AnyValue) (out value, err error) {
	switch kind := v.GetValue().(type) {
	case nil:
	case *commonv1.AnyValue_StringValue:
		out.text, err = compileText(kind.StringValue, false)
	case *commonv1.AnyValue_KvlistValue:
		out.fields, err = compileKeyed(kind.KvlistValue.GetValues())
	case *commonv1.AnyValue_ArrayValue:
		for _, element := range kind.ArrayValue.GetValues() {
			one, err := compileValue(element)
			if err != nil {
				return out, err
			}
			out.list = append(out.list, one)
		}
	default:
		err = errors.New("values are text, lists and maps")
	}
	return out, err
}

func compileKeyed(list []*commonv1.KeyValue) ([]keyed, error) {
	var out []keyed
	for _, kv := range list {
		v, err := compileValue(kv.GetValue())
		if err != nil {
			return nil, fmt.Errorf("%q: %w", kv.GetKey(), err)
		}
		out = append(out, keyed{kv.GetKey(), v})
	}
	return out, nil
}

// appendTo appends the record as one element of ScopeLogs.log_records.
func (o *otelRecord) appendTo(dst []byte, r *proxy.Record) []byte {
	b := make([]byte, 0, 512)
	b = export.AppendFixed64(b, 1, uint64(r.Start.UnixNano())) //nolint:gosec // after 1970
	if o.body.text != nil || o.body.fields != nil || o.body.list != nil {
		b = export.AppendBytes(b, 5, o.body.appendAny(nil, r))
	}
	b = appendKeyed(b, 6, o.attributes, r)
	if r.Decision != nil && r.Decision.Span != nil && !r.Decision.Span.Lost {
		s := r.Decision.Span
		b = export.AppendBytes(b, 9, s.Trace[:])
		b = export.AppendBytes(b, 10, s.ID[:])
	}
	return export.AppendBytes(dst, 2, b)
}

func appendKeyed(dst []byte, field int32, list []keyed, r *proxy.Record) []byte {
	for i := range list {
		kv := export.AppendBytes(nil, 1, list[i].key)
		kv = export.AppendBytes(kv, 2, list[i].value.appendAny(nil, r))
		dst = export.AppendBytes(dst, export.Number(field), kv)
	}
	return dst
}

// appendAny appends the fields of an AnyValue.
func (v *value) appendAny(dst []byte, r *proxy.Record) []byte {
	switch {
	case v.fields != nil:
		return export.AppendBytes(dst, 6, appendKeyed(nil, 1, v.fields, r))
	case v.list != nil:
		var all []byte
		for i := range v.list {
			all = export.AppendBytes(all, 1, v.list[i].appendAny(nil, r))
		}
		return export.AppendBytes(dst, 5, all)
	case v.text == nil:
		return dst
	}
	text := v.text.appendTo(nil, r)
	if !utf8.Valid(text) {
		text = []byte(strings.ToValidUTF8(string(text), "\uFFFD"))
	}
	return export.AppendBytes(dst, 1, text)
}

// collectorLocked is the one batcher of equal destinations.
func (l *Log) collectorLocked(o *otelRecord) *export.Batcher {
	key := fmt.Sprintf("%s|%s|%v|%s|%v|%v", o.to.Cluster, o.to.Authority, o.to.Headers, o.logName, o.builtin, o.more)
	if b := l.batchers[key]; b != nil {
		return b
	}
	resource := o.more
	if o.builtin {
		resource = append([]export.Attribute{
			{Key: "log_name", Value: o.logName},
			{Key: "zone_name", Value: l.config.Zone},
			{Key: "cluster_name", Value: l.config.Cluster},
			{Key: "node_name", Value: l.config.Node},
		}, resource...)
	}
	b := export.NewBatcher(o.to, export.OTLP(true, resource, "", ""), l.config.Send, &l.collected, l.config.Log)
	l.batchers[key] = b
	return b
}

// Collected counts what was sent to collectors.
func (l *Log) Collected() *export.Counters { return &l.collected }

// Flush sends what waits for collectors; nothing is sent to them afterwards.
func (l *Log) Flush() {
	l.mu.Lock()
	batchers := make([]*export.Batcher, 0, len(l.batchers))
	for _, b := range l.batchers {
		batchers = append(batchers, b)
	}
	l.mu.Unlock()
	for _, b := range batchers {
		b.Close()
	}
}
