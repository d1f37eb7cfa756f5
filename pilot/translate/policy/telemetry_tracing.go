package policy

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshapi "istio.io/api/mesh/v1alpha1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
)

const (
	otelTracerName   = "envoy.tracers.opentelemetry"
	zipkinTracerName = "envoy.tracers.zipkin"
	// defaultSampling is how many of a hundred requests are traced where nobody says anything.
	defaultSampling = 1.0
	// legacyProvider is the name of the one that defaultConfig.tracing stands for.
	legacyProvider = "defaultConfig.tracing"
)

// tracer is a provider that can be used.
type tracer struct {
	config *tracev3.Tracing_Http
	// pathLimit is of a tag; nil is the default.
	pathLimit uint32
}

// traceSpec is what the levels say together.
type traceSpec struct {
	provider  string
	off       bool
	sampling  *wrapperspb.DoubleValue
	byID      *wrapperspb.BoolValue
	istioTags *wrapperspb.BoolValue
	silent    bool
	tags      map[string]*telemetryapi.Tracing_CustomTag
}

// tracing merges what the levels say; a field of a later level replaces that of an earlier one.
func (t *telemetry) tracing(levels []*telemetryapi.Telemetry) (*hcmv3.HttpConnectionManager_Tracing, *hcmv3.RequestIDExtension, string) {
	s := traceSpec{provider: t.defaultTracer()}
	for _, level := range levels {
		for _, l := range level.GetTracing() {
			if t.matches(l.GetMatch().GetMode()) {
				s.apply(l)
			}
		}
	}
	if s.provider == "" || s.off {
		return nil, nil, ""
	}
	found, problem := t.tracer(s.provider)
	if found == nil {
		return nil, nil, problem
	}
	whole := &typev3.Percent{Value: 100}
	out := &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling: whole, OverallSampling: whole, RandomSampling: &typev3.Percent{Value: t.sampling(&s)},
		Provider: found.config, NoContextPropagation: s.silent, CustomTags: t.customTags(&s),
	}
	limit := t.mesh.GetDefaultConfig().GetTracing().GetMaxPathTagLength()
	if found.pathLimit > 0 {
		limit = found.pathLimit
	}
	if limit > 0 {
		out.MaxPathTagLength = wrapperspb.UInt32(limit)
	}
	var id *hcmv3.RequestIDExtension
	if s.byID != nil {
		id = &hcmv3.RequestIDExtension{TypedConfig: mustAny(&uuidv3.UuidRequestIdConfig{UseRequestIdForTraceSampling: s.byID})}
	}
	return out, id, problem
}

func (s *traceSpec) apply(l *telemetryapi.Tracing) {
	if names := providerNames(l.GetProviders()); len(names) > 0 {
		s.provider = names[0]
	}
	if l.GetDisableSpanReporting() != nil {
		s.off = l.GetDisableSpanReporting().GetValue()
	}
	if l.GetRandomSamplingPercentage() != nil {
		s.sampling = l.GetRandomSamplingPercentage()
	}
	if l.GetUseRequestIdForTraceSampling() != nil {
		s.byID = l.GetUseRequestIdForTraceSampling()
	}
	if l.GetEnableIstioTags() != nil {
		s.istioTags = l.GetEnableIstioTags()
	}
	if l.GetDisableContextPropagation() != nil {
		s.silent = l.GetDisableContextPropagation().GetValue()
	}
	if len(l.GetCustomTags()) > 0 {
		s.tags = l.GetCustomTags()
	}
}

func (t *telemetry) sampling(s *traceSpec) float64 {
	legacy := t.mesh.GetDefaultConfig().GetTracing()
	switch {
	case s.sampling != nil:
		return s.sampling.GetValue()
	case legacy.GetSampling() > 0:
		return legacy.GetSampling()
	}
	return defaultSampling
}

// defaultTracer is the provider where no object names one.
func (t *telemetry) defaultTracer() string {
	if names := t.mesh.GetDefaultProviders().GetTracing(); len(names) > 0 {
		return names[0]
	}
	if t.mesh.GetEnableTracing() && t.mesh.GetDefaultConfig().GetTracing().GetZipkin().GetAddress() != "" {
		return legacyProvider
	}
	return ""
}

// tracer makes the tracer of a provider; nil, and why, when that cannot be.
func (t *telemetry) tracer(name string) (*tracer, string) {
	p := t.provider(name)
	switch {
	case p.GetOpentelemetry() != nil:
		return t.openTelemetry(name, p.GetOpentelemetry())
	case p.GetZipkin() != nil:
		z := p.GetZipkin()
		return t.zipkin(name, z)
	case p != nil:
		return nil, fmt.Sprintf("the provider %q is none of opentelemetry and zipkin: nothing is traced with it", name)
	case name == legacyProvider:
		host, port, err := net.SplitHostPort(t.mesh.GetDefaultConfig().GetTracing().GetZipkin().GetAddress())
		number, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil {
			return nil, "defaultConfig.tracing.zipkin.address: not HOST:PORT"
		}
		return t.zipkin(name, &meshapi.MeshConfig_ExtensionProvider_ZipkinTracingProvider{Service: host, Port: uint32(number), Enable_64BitTraceId: false})
	}
	return nil, fmt.Sprintf("meshConfig.extensionProviders has no provider %q", name)
}

func httpTracer(name string, m proto.Message) *tracev3.Tracing_Http {
	return &tracev3.Tracing_Http{Name: name, ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: mustAny(m)}}
}

func (t *telemetry) openTelemetry(name string, p *meshapi.MeshConfig_ExtensionProvider_OpenTelemetryTracingProvider) (*tracer, string) {
	to, err := t.find(p.GetService(), p.GetPort())
	if err != nil {
		return nil, missing(name, err)
	}
	var problem string
	switch {
	case p.GetDynatraceSampler() != nil:
		return nil, fmt.Sprintf("the provider %q: dynatraceSampler is not supported", name)
	case p.GetResourceDetectors() != nil:
		problem = fmt.Sprintf("the provider %q: resourceDetectors are left out", name)
	}
	config := &tracev3.OpenTelemetryConfig{}
	if h := p.GetHttp(); h != nil {
		config.HttpService = httpService(to, p.GetPort(), h)
		for _, header := range h.GetHeaders() {
			if header.GetEnvName() != "" {
				problem = fmt.Sprintf("the provider %q: http.headers.%s: envName is left out", name, header.GetName())
			}
		}
	} else {
		config.GrpcService = grpcService(to, nil)
		config.GrpcService.Timeout = p.GetGrpc().GetTimeout()
		for _, header := range p.GetGrpc().GetInitialMetadata() {
			if header.GetValue() == "" {
				problem = fmt.Sprintf("the provider %q: grpc.initialMetadata.%s: envName is left out", name, header.GetName())
				continue
			}
			config.GrpcService.InitialMetadata = append(config.GrpcService.InitialMetadata, &corev3.HeaderValue{Key: header.GetName(), Value: header.GetValue()})
		}
	}
	return &tracer{config: httpTracer(otelTracerName, config), pathLimit: p.GetMaxTagLength()}, problem
}

func httpService(to Backend, port uint32, h *meshapi.MeshConfig_ExtensionProvider_HttpService) *corev3.HttpService {
	path := h.GetPath()
	if path == "" {
		path = "/v1/traces"
	} else if path[0] != '/' {
		path = "/" + path
	}
	timeout := h.GetTimeout()
	if timeout == nil {
		timeout = durationpb.New(10e9)
	}
	out := &corev3.HttpService{HttpUri: &corev3.HttpUri{
		Uri:              "http://" + net.JoinHostPort(to.Host, strconv.FormatUint(uint64(port), 10)) + path,
		HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: to.Cluster}, Timeout: timeout,
	}}
	for _, header := range h.GetHeaders() {
		if header.GetValue() != "" {
			out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: header.GetName(), Value: header.GetValue()},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			})
		}
	}
	return out
}

func (t *telemetry) zipkin(name string, p *meshapi.MeshConfig_ExtensionProvider_ZipkinTracingProvider) (*tracer, string) {
	to, err := t.find(p.GetService(), p.GetPort())
	if err != nil {
		return nil, missing(name, err)
	}
	config := &tracev3.ZipkinConfig{
		CollectorCluster: to.Cluster, CollectorHostname: to.Host, CollectorEndpoint: orDefault(p.GetPath(), "/api/v2/spans"),
		CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON, TraceId_128Bit: !p.GetEnable_64BitTraceId(), SharedSpanContext: wrapperspb.Bool(false),
	}
	if p.GetTraceContextOption() == meshapi.MeshConfig_ExtensionProvider_ZipkinTracingProvider_USE_B3_WITH_W3C_PROPAGATION {
		config.TraceContextOption = tracev3.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION
	}
	if p.GetTimeout() != nil || len(p.GetHeaders()) > 0 {
		config.CollectorService = httpService(to, p.GetPort(), &meshapi.MeshConfig_ExtensionProvider_HttpService{
			Path: config.GetCollectorEndpoint(), Timeout: p.GetTimeout(), Headers: p.GetHeaders(),
		})
		config.CollectorCluster, config.CollectorEndpoint, config.CollectorHostname = "", "", ""
	}
	return &tracer{config: httpTracer(zipkinTracerName, config), pathLimit: p.GetMaxTagLength()}, ""
}

// customTags are those that were asked for, and the mesh's own.
func (t *telemetry) customTags(s *traceSpec) []*tagv3.CustomTag {
	var out []*tagv3.CustomTag
	if s.istioTags == nil || s.istioTags.GetValue() {
		out = istioTags()
	}
	for _, name := range slices.Sorted(maps.Keys(s.tags)) {
		tag := &tagv3.CustomTag{Tag: name}
		switch kind := s.tags[name].GetType().(type) {
		case *telemetryapi.Tracing_CustomTag_Literal:
			tag.Type = &tagv3.CustomTag_Literal_{Literal: &tagv3.CustomTag_Literal{Value: kind.Literal.GetValue()}}
		case *telemetryapi.Tracing_CustomTag_Environment:
			tag.Type = &tagv3.CustomTag_Environment_{Environment: &tagv3.CustomTag_Environment{
				Name: kind.Environment.GetName(), DefaultValue: kind.Environment.GetDefaultValue(),
			}}
		case *telemetryapi.Tracing_CustomTag_Header:
			tag.Type = &tagv3.CustomTag_RequestHeader{RequestHeader: &tagv3.CustomTag_Header{
				Name: kind.Header.GetName(), DefaultValue: kind.Header.GetDefaultValue(),
			}}
		case *telemetryapi.Tracing_CustomTag_Formatter:
			if len(FormatProblems(kind.Formatter.GetValue())) > 0 {
				continue // the object's condition says so
			}
			tag.Type = &tagv3.CustomTag_Value{Value: kind.Formatter.GetValue()}
		default:
			continue
		}
		out = append(out, tag)
	}
	return out
}

// istioTags say who both ends are. Stock Envoy does not know and leaves them out.
func istioTags() []*tagv3.CustomTag {
	var out []*tagv3.CustomTag
	add := func(tag, object, field string) {
		out = append(out, &tagv3.CustomTag{Tag: tag, Type: &tagv3.CustomTag_Value{Value: "%FILTER_STATE(" + object + ":FIELD:" + field + ")%"}})
	}
	fields := [][2]string{
		{"app", "app"},
		{"app_version", "version"},
		{"canonical_revision", "revision"},
		{"canonical_service", "service"},
		{"cluster_id", "cluster"},
		{"instance_name", "name"},
		{"namespace", "namespace"},
		{"workload", "workload"},
		{"workload_type", "type"},
	}
	for _, side := range [][2]string{{"istio.destination_", "upstream_peer"}, {"istio.source_", "downstream_peer"}} {
		for _, f := range fields {
			add(side[0]+f[0], side[1], f[1])
		}
	}
	add("istio.downstream.workload", "downstream_peer", "workload")
	add("istio.upstream.workload", "upstream_peer", "workload")
	return out
}
