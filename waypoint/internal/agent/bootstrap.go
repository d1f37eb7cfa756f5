package agent

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The clusters of a bootstrap, as tools of the field know them.
const (
	clusterStats  = "prometheus_stats"
	clusterAgent  = "agent"
	clusterXDS    = "xds-grpc"
	clusterSDS    = "sds-grpc"
	clusterZipkin = "zipkin"
)

// BootstrapConfig is what a bootstrap is made of.
type BootstrapConfig struct {
	Node *corev3.Node
	// Admin, Agent, Stats and Readiness are addresses host:port: of Envoy's admin port, of the agent's merged metrics, and of the
	// two listeners that Envoy serves to the pod's outside.
	Admin, Agent, Stats, Readiness string
	// XDS and SDS are where discovery and certificates come from: a Unix socket's path, or host:port.
	XDS, SDS string
	// Zipkin is where traces would go: host:port.
	Zipkin string
}

// Bootstrap describes a proxy as Istio's does.
func Bootstrap(c BootstrapConfig) (*bootstrapv3.Bootstrap, error) {
	// A proxy says which addresses it has.
	b := &builder{ipv6: strings.Contains(c.Node.GetMetadata().GetFields()["INSTANCE_IPS"].GetStringValue(), ":")}
	out := &bootstrapv3.Bootstrap{
		Node:  c.Node,
		Admin: &bootstrapv3.Admin{Address: b.address(c.Admin), AccessLog: []*accesslogv3.AccessLog{b.silent()}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			LdsConfig: ads(), CdsConfig: ads(),
			AdsConfig: &corev3.ApiConfigSource{
				ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: clusterXDS}}}},
			},
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*clusterv3.Cluster{
				b.cluster(clusterStats, c.Admin, false), b.cluster(clusterAgent, c.Agent, false),
				b.cluster(clusterSDS, c.SDS, true), b.cluster(clusterXDS, c.XDS, true), b.cluster(clusterZipkin, c.Zipkin, false),
			},
			Listeners: []*listenerv3.Listener{
				b.listener("prometheus_stats", c.Stats, "/stats/prometheus", clusterStats),
				b.listener("readiness", c.Readiness, "/healthz/ready", clusterAgent),
			},
		},
		StatsConfig: statsConfig(),
		OverloadManager: &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
			Name: "envoy.resource_monitors.global_downstream_max_connections", ConfigType: &overloadv3.ResourceMonitor_TypedConfig{
				TypedConfig: b.any(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: math.MaxInt32}),
			},
		}}},
		// The internal listeners through which HBONE goes.
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{Name: "envoy.bootstrap.internal_listener", TypedConfig: b.any(&internalv3.InternalListener{})}},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
			{Name: "global config", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				"re2.max_program_size.error_level": structpb.NewStringValue("32768"),
			}}}},
			{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
		}},
	}
	return out, errors.Join(b.problems...)
}

// statsConfig takes the parts of names that vary out into labels. Names of clusters have dots themselves, so a cluster's name ends
// where one of Envoy's own begins.
func statsConfig() *metricsv3.StatsConfig {
	tag := func(name, regex string) *metricsv3.TagSpecifier {
		return &metricsv3.TagSpecifier{TagName: name, TagValue: &metricsv3.TagSpecifier_Regex{Regex: regex}}
	}
	const own = `upstream_|membership_|lb_|circuit_breakers\.|assignment_|bind_errors|external\.upstream_|internal\.upstream_|http[123]\.|ssl\.|` +
		`update_|version$|version_text$|warming_state$|max_host_weight$|original_dst|retry_|retry\.|outlier_detection\.|init_fetch_|zone\.|` +
		`client_ssl_|default\.upstream_|[^.]+\.total_match_count$`
	const address = `(?:[_.0-9]*|[_\[\]aAbBcCdDeEfF0-9]*)`
	return &metricsv3.StatsConfig{
		UseAllDefaultTags: wrapperspb.Bool(false),
		StatsTags: []*metricsv3.TagSpecifier{
			tag("cluster_name", `^cluster\.((.+?)\.)(?:`+own+`)`),
			tag("tcp_prefix", `^tcp\.((.*?)\.)\w+?$`),
			tag("response_code", `_rq(_(\d{3}))$`),
			tag("response_code_class", `_rq(_(\dxx))$`),
			tag("http_conn_manager_listener_prefix", `^listener\..*?\.http\.((.*?)\.)(?:downstream|rq|no_route|passthrough)`),
			tag("http_conn_manager_prefix", `^http\.((.*?)\.)(?:downstream|rq|no_route|no_cluster|passthrough|tracing|rds)`),
			tag("listener_address", `^listener\.((`+address+`)\.)`),
		},
	}
}

// builder collects problems, so that the message can be written as one expression.
type builder struct {
	ipv6     bool // the proxy has addresses of this family
	problems []error
}

func (b *builder) any(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		b.problems = append(b.problems, fmt.Errorf("bootstrap: %w", err))
	}
	return out
}

// address reads host:port, or the path of a Unix socket.
func (b *builder) address(text string) *corev3.Address {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: text}}}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		b.problems = append(b.problems, fmt.Errorf("bootstrap: address %q: %w", text, err))
	}
	compat := false
	switch host {
	case "":
		if host = "0.0.0.0"; b.ipv6 {
			host, compat = "::", true
		}
	case "::":
		compat = true
	case "localhost":
		host = "127.0.0.1"
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(number)}, Ipv4Compat: compat,
	}}}
}

// reachable is an address to connect to rather than to listen on.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err == nil && (host == "" || host == "::" || host == "0.0.0.0") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

func (b *builder) cluster(name, address string, http2 bool) *clusterv3.Cluster {
	to := b.address(reachable(address))
	c := &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: to}}}},
		}}},
	}
	if s := to.GetSocketAddress(); s != nil && net.ParseIP(s.GetAddress()) == nil {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		c.WaitForWarmOnInit = wrapperspb.Bool(false)                              // Envoy starts without names that nobody resolves
		c.RespectDnsTtl, c.DnsLookupFamily = true, clusterv3.Cluster_V4_PREFERRED //nolint:staticcheck // the other way needs an extension's type in the dump
	}
	if !http2 {
		return c
	}
	limits := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: wrapperspb.UInt32(100000), MaxPendingRequests: wrapperspb.UInt32(100000), MaxRequests: wrapperspb.UInt32(100000),
	}
	high := proto.Clone(limits).(*clusterv3.CircuitBreakers_Thresholds)
	high.Priority = corev3.RoutingPriority_HIGH
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{limits, high}}
	c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{KeepaliveTime: wrapperspb.UInt32(300)}}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.any(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
			}},
		}),
	}
	return c
}

// listener serves one path from a cluster; everything else is 404.
func (b *builder) listener(name, address, path, cluster string) *listenerv3.Listener {
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: name, CodecType: hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "backend", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: path}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
			}}}},
		}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&routerv3.Router{})}}},
	}
	return &listenerv3.Listener{
		Name: name, Address: b.address(address), IgnoreGlobalConnLimit: true, BypassOverloadManager: true,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(manager)},
		}}}},
	}
}

// silent is an access log of the admin port that nobody reads.
func (b *builder) silent() *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&filev3.FileAccessLog{Path: "/dev/null"})}}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(0), ResourceApiVersion: corev3.ApiVersion_V3,
	}
}
