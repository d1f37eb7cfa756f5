package tracing

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Kind of a tracer.
type Kind uint8

// The tracers.
const (
	OpenTelemetryGRPC Kind = iota
	OpenTelemetryHTTP
	Zipkin
)

// Provider is where spans are sent, and how. It is comparable but for its headers.
type Provider struct {
	Kind Kind
	// Cluster of the collector.
	Cluster string
	// Authority and Path of the requests to it.
	Authority, Path string
	Timeout         time.Duration
	Headers         []httpmsg.Field
	// ServiceName is what the proxy calls itself; "" is its own name.
	ServiceName string

	// w3c is whether trace contexts of W3C are read and written beside B3; wide whether trace ids that are made have 128 bits; shared
	// whether the span of a server is the client's.
	w3c, wide, shared bool
}

// Config is a compiled HttpConnectionManager.Tracing.
type Config struct {
	Provider Provider
	// Egress is whether the listener is for what leaves: spans then are those of a client.
	Egress bool
	// PathLimit is how much of a path a tag shows.
	PathLimit int
	// Tags that every span gets.
	Tags []*tagv3.CustomTag
	// Silent is that contexts are not passed on.
	Silent bool

	byID, pack              bool   // of the request id: whether it decides, and whether it says what was decided
	client, random, overall uint64 // in 10 000
}

// Default values of Envoy.
const (
	defaultTimeout   = 10 * time.Second
	defaultPathLimit = 256
	wholly           = 10_000
)

// Compile reads a message that strict.Check has seen; nil is no tracing. egress is whether the listener is for what leaves.
func Compile(p *hcmv3.HttpConnectionManager, egress bool) (*Config, error) {
	t := p.GetTracing()
	if t == nil || t.GetProvider() == nil {
		return nil, nil
	}
	if t.GetSpawnUpstreamSpan().GetValue() {
		return nil, strict.Errorf("tracing.spawn_upstream_span", "is not supported")
	}
	c := &Config{
		Egress: egress, PathLimit: defaultPathLimit, Tags: t.GetCustomTags(), Silent: t.GetNoContextPropagation(),
		byID: true, pack: true, client: percent(t.GetClientSampling(), true), random: percent(t.GetRandomSampling(), false), overall: percent(t.GetOverallSampling(), true),
	}
	if n := t.GetMaxPathTagLength(); n != nil {
		c.PathLimit = int(n.GetValue())
	}
	if a := p.GetRequestIdExtension().GetTypedConfig(); a != nil {
		u := &uuidv3.UuidRequestIdConfig{}
		if err := a.UnmarshalTo(u); err != nil {
			return nil, strict.Errorf("request_id_extension.typed_config", "%v", err)
		}
		c.byID = u.GetUseRequestIdForTraceSampling() == nil || u.GetUseRequestIdForTraceSampling().GetValue()
		c.pack = u.GetPackTraceReason() == nil || u.GetPackTraceReason().GetValue()
	}
	m, err := strict.Unpack(t.GetProvider().GetTypedConfig())
	if err != nil {
		return nil, strict.At(err, "tracing.provider.typed_config")
	}
	switch m := m.(type) {
	case *tracev3.OpenTelemetryConfig:
		err = c.Provider.openTelemetry(m)
	case *tracev3.ZipkinConfig:
		err = c.Provider.zipkin(m)
	default:
		err = strict.Errorf("", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return c, strict.At(err, "tracing.provider.typed_config")
}

// percent is in 10 000; the fractions of a percent count for the random choice only.
func percent(p *typev3.Percent, whole bool) uint64 {
	switch {
	case p == nil:
		return wholly
	case whole:
		return uint64(p.GetValue()) * 100
	}
	return uint64(math.Round(p.GetValue() * 100))
}

func (p *Provider) openTelemetry(m *tracev3.OpenTelemetryConfig) error {
	p.w3c, p.ServiceName = true, m.GetServiceName()
	switch {
	case m.GetGrpcService() != nil:
		p.Path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
		return strict.At(p.GRPC(m.GetGrpcService()), "grpc_service")
	case m.GetHttpService() != nil:
		p.Kind = OpenTelemetryHTTP
		return strict.At(p.http(m.GetHttpService()), "http_service")
	}
	return strict.Errorf("grpc_service", "or http_service is required")
}

// GRPC reads to whom a gRPC service is.
func (p *Provider) GRPC(s *corev3.GrpcService) error {
	e := s.GetEnvoyGrpc()
	if e.GetClusterName() == "" {
		return strict.Errorf("envoy_grpc.cluster_name", "is required")
	}
	p.Kind, p.Cluster, p.Authority, p.Timeout = OpenTelemetryGRPC, e.GetClusterName(), e.GetAuthority(), defaultTimeout
	if p.Authority == "" {
		p.Authority = p.Cluster
	}
	if s.GetTimeout() != nil {
		p.Timeout = s.GetTimeout().AsDuration()
	}
	for _, h := range s.GetInitialMetadata() {
		p.add(h)
	}
	return nil
}

func (p *Provider) http(s *corev3.HttpService) error {
	u := s.GetHttpUri()
	if u.GetCluster() == "" {
		return strict.Errorf("http_uri.cluster", "is required")
	}
	p.Cluster, p.Timeout = u.GetCluster(), defaultTimeout
	if u.GetTimeout() != nil {
		p.Timeout = u.GetTimeout().AsDuration()
	}
	rest := u.GetUri()
	if _, after, ok := strings.Cut(rest, "://"); ok {
		rest = after
	}
	p.Authority, p.Path, _ = strings.Cut(rest, "/")
	p.Path = "/" + p.Path
	if p.Authority == "" {
		p.Authority = p.Cluster
	}
	for _, h := range s.GetRequestHeadersToAdd() {
		p.add(h.GetHeader())
	}
	return nil
}

func (p *Provider) add(h *corev3.HeaderValue) {
	value := h.GetValue()
	if value == "" {
		value = string(h.GetRawValue())
	}
	p.Headers = append(p.Headers, httpmsg.Field{Key: strings.ToLower(h.GetKey()), Value: value})
}

func (p *Provider) zipkin(m *tracev3.ZipkinConfig) error {
	p.Kind, p.w3c, p.wide = Zipkin, m.GetTraceContextOption() == tracev3.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION, m.GetTraceId_128Bit()
	p.shared = m.GetSharedSpanContext() == nil || m.GetSharedSpanContext().GetValue()
	if m.GetCollectorEndpointVersion() == tracev3.ZipkinConfig_HTTP_PROTO {
		return strict.Errorf("collector_endpoint_version", "HTTP_PROTO is not supported: use HTTP_JSON")
	}
	if m.GetCollectorService() != nil {
		return strict.At(p.http(m.GetCollectorService()), "collector_service")
	}
	if m.GetCollectorCluster() == "" || m.GetCollectorEndpoint() == "" {
		return strict.Errorf("collector_cluster", "and collector_endpoint are required")
	}
	p.Cluster, p.Path, p.Authority, p.Timeout = m.GetCollectorCluster(), m.GetCollectorEndpoint(), m.GetCollectorHostname(), 5*time.Second
	if p.Authority == "" {
		p.Authority = p.Cluster
	}
	return nil
}

// Sampled is how many percent of the requests are traced that ask for nothing themselves.
func (c *Config) Sampled() float64 { return float64(min(c.random, c.overall)) / 100 }
