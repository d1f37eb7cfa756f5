package policy

import (
	"fmt"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otellogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/expr"
)

const (
	otelAccessLogName = "envoy.access_loggers.open_telemetry"
	defaultOTelLog    = "otel_envoy_accesslog"
	celFilterName     = "envoy.access_loggers.extension_filters.cel"
)

// choice is what is decided about one provider of logs.
type choice struct {
	off    bool
	filter string
}

// logs merges what the levels say. A level that names providers replaces those of the ones before; one that names none speaks of
// these.
func (t *telemetry) logs(levels []*telemetryapi.Telemetry) (out []*accesslogv3.AccessLog, problems []string) {
	inherited := t.defaultLogs()
	choices := map[string]choice{}
	for _, level := range levels {
		var named []string
		for _, l := range level.GetAccessLogging() {
			if !t.matches(l.GetMatch().GetMode()) {
				continue
			}
			of := providerNames(l.GetProviders())
			if len(of) == 0 {
				of = inherited
			} else {
				named = appendMissing(named, of...)
			}
			for _, name := range of {
				c := choices[name]
				if l.GetDisabled() != nil || l.GetFilter() != nil || len(l.GetProviders()) > 0 {
					c.off = l.GetDisabled().GetValue()
				}
				if l.GetFilter() != nil {
					c.filter = l.GetFilter().GetExpression()
				}
				choices[name] = c
			}
		}
		if len(named) > 0 {
			inherited = named
		}
	}
	for _, name := range inherited {
		c := choices[name]
		if c.off {
			continue
		}
		if _, err := expr.Compile(c.filter); c.filter != "" && err != nil {
			problems = append(problems, fmt.Sprintf("filter.expression: %v: nothing is logged", err))
			continue
		}
		logs, more := t.log(name)
		problems = append(problems, more...)
		for _, l := range logs {
			out = append(out, filtered(l, c.filter))
		}
	}
	return out, problems
}

func appendMissing(to []string, more ...string) []string {
	for _, s := range more {
		if !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}

// defaultLogs are the providers where no object names any.
func (t *telemetry) defaultLogs() []string {
	if names := t.mesh.GetDefaultProviders().GetAccessLogging(); len(names) > 0 {
		return names
	}
	if t.mesh.GetAccessLogFile() == "" {
		return nil
	}
	return []string{envoyProvider}
}

func filtered(l *accesslogv3.AccessLog, expression string) *accesslogv3.AccessLog {
	if expression == "" {
		return l
	}
	l = proto.CloneOf(l)
	l.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name:       celFilterName,
		ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: mustAny(&celfilterv3.ExpressionFilter{Expression: expression})},
	}}}
	return l
}

// log makes the access log of a provider; none when that cannot be.
func (t *telemetry) log(name string) (out []*accesslogv3.AccessLog, problems []string) {
	p := t.provider(name)
	switch {
	case p == nil && name != envoyProvider:
		return nil, []string{fmt.Sprintf("meshConfig.extensionProviders has no provider %q", name)}
	case p.GetEnvoyOtelAls() != nil:
		return t.otelLog(name, p.GetEnvoyOtelAls())
	case p != nil && p.GetEnvoyFileAccessLog() == nil:
		return nil, []string{fmt.Sprintf("the provider %q is none of envoyFileAccessLog and envoyOtelAls", name)}
	}
	path, format, problem := provider(t.mesh, name)
	if problem != "" {
		problems = append(problems, problem)
	}
	if wrong := formatProblems(format); len(wrong) > 0 {
		for _, w := range wrong {
			problems = append(problems, fmt.Sprintf("the log format of the provider %q: %s: nothing is logged with it", name, w))
		}
		return nil, problems
	}
	return []*accesslogv3.AccessLog{fileLog(path, format)}, problems
}

// formatProblems are what an engine would refuse the format for.
func formatProblems(f *corev3.SubstitutionFormatString) []string {
	if text := f.GetTextFormatSource(); text != nil {
		return FormatProblems(text.GetInlineString())
	}
	return structProblems(structpb.NewStructValue(f.GetJsonFormat()))
}

func structProblems(v *structpb.Value) (out []string) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return FormatProblems(kind.StringValue)
	case *structpb.Value_StructValue:
		for _, field := range kind.StructValue.GetFields() {
			out = append(out, structProblems(field)...)
		}
	case *structpb.Value_ListValue:
		for _, element := range kind.ListValue.GetValues() {
			out = append(out, structProblems(element)...)
		}
	}
	slices.Sort(out)
	return out
}

func (t *telemetry) otelLog(name string, p *meshapi.MeshConfig_ExtensionProvider_EnvoyOpenTelemetryLogProvider) ([]*accesslogv3.AccessLog, []string) {
	to, err := t.find(p.GetService(), p.GetPort())
	if err != nil {
		return nil, []string{missing(name, err)}
	}
	line := orDefault(p.GetLogFormat().GetText(), DefaultLogFormat)
	problems := append(FormatProblems(line), structProblems(structpb.NewStructValue(p.GetLogFormat().GetLabels()))...)
	if len(problems) > 0 {
		for i := range problems {
			problems[i] = fmt.Sprintf("the log format of the provider %q: %s: nothing is logged with it", name, problems[i])
		}
		return nil, problems
	}
	config := &otellogv3.OpenTelemetryAccessLogConfig{
		CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{ //nolint:staticcheck // the form that older proxies know
			LogName: orDefault(p.GetLogName(), defaultOTelLog), GrpcService: grpcService(to, nil), TransportApiVersion: corev3.ApiVersion_V3,
		},
		Body: textValue(line),
	}
	if labels := p.GetLogFormat().GetLabels(); len(labels.GetFields()) > 0 {
		config.Attributes = keyValues(labels)
	}
	return []*accesslogv3.AccessLog{{Name: otelAccessLogName, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: mustAny(config)}}}, nil
}

func missing(name string, err error) string {
	return fmt.Sprintf("the provider %q: %v", name, err)
}

func textValue(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

// keyValues are sorted, so that equal configuration is the same bytes.
func keyValues(s *structpb.Struct) *commonv1.KeyValueList {
	out := &commonv1.KeyValueList{}
	for _, key := range sortedFields(s) {
		out.Values = append(out.Values, &commonv1.KeyValue{Key: key, Value: anyValue(s.GetFields()[key])})
	}
	return out
}

func anyValue(v *structpb.Value) *commonv1.AnyValue {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_KvlistValue{KvlistValue: keyValues(kind.StructValue)}}
	case *structpb.Value_StringValue:
		return textValue(kind.StringValue)
	}
	return textValue(fmt.Sprint(v.AsInterface()))
}

func sortedFields(s *structpb.Struct) []string {
	out := make([]string, 0, len(s.GetFields()))
	for key := range s.GetFields() {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
