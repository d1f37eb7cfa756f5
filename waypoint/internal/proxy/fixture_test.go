package proxy

import (
	"fmt"
	"strings"

	// What the fixtures name.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

const router = `{"name":"envoy.filters.http.router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`

// connectTerminate is the HBONE listener of a waypoint.
const connectTerminate = `{"name":"connect_terminate","address":{"socket_address":{"address":"127.0.0.1","port_value":0}},
"filter_chains":[{"name":"default","filters":[{"name":"envoy.filters.network.http_connection_manager","typed_config":{
 "@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
 "stat_prefix":"connect_terminate","codec_type":"HTTP2","http2_protocol_options":{"allow_connect":true},
 "upgrade_configs":[{"upgrade_type":"CONNECT"}],
 "route_config":{"name":"default","virtual_hosts":[{"name":"default","domains":["*"],"routes":[{"match":{"connect_matcher":{}},
  "route":{"cluster":"main_internal","upgrade_configs":[{"upgrade_type":"CONNECT","connect_config":{}}]}}]}]},
 "http_filters":[` + router + `]}}],
"transport_socket":{"name":"envoy.transport_sockets.tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
 "require_client_certificate":true,"common_tls_context":{"alpn_protocols":["h2"],
 "tls_params":{"tls_minimum_protocol_version":"TLSv1_3","tls_maximum_protocol_version":"TLSv1_3"},
 "tls_certificate_sds_secret_configs":[{"name":"default","sds_config":{"ads":{},"resource_api_version":"V3"}}],
 "combined_validation_context":{"default_validation_context":{"match_typed_subject_alt_names":[{"san_type":"URI","matcher":{"prefix":"spiffe://cluster.local/"}}]},
  "validation_context_sds_secret_config":{"name":"ROOTCA","sds_config":{"ads":{},"resource_api_version":"V3"}}}}}}}]}`

// connectOriginate is the listener that carries connections into tunnels.
const connectOriginate = `{"name":"connect_originate","internal_listener":{},
"listener_filters":[{"name":"envoy.filters.listener.original_dst","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}}],
"filter_chains":[{"filters":[{"name":"envoy.filters.network.tcp_proxy","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
 "stat_prefix":"connect_originate","cluster":"connect_originate","tunneling_config":{"hostname":"%DOWNSTREAM_LOCAL_ADDRESS%"}}}]}]}`

// originateCluster is how tunnels are opened.
const originateCluster = `{"name":"connect_originate","type":"ORIGINAL_DST","lb_policy":"CLUSTER_PROVIDED","connect_timeout":"30s",
"original_dst_lb_config":{"upstream_port_override":15008},
"transport_socket":{"name":"envoy.transport_sockets.tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
 "common_tls_context":{"alpn_protocols":["h2"],
 "tls_certificate_sds_secret_configs":[{"name":"default","sds_config":{"ads":{},"resource_api_version":"V3"}}],
 "combined_validation_context":{"default_validation_context":{"match_typed_subject_alt_names":[{"san_type":"URI","matcher":{"prefix":"spiffe://cluster.local/"}}]},
  "validation_context_sds_secret_config":{"name":"ROOTCA","sds_config":{"ads":{},"resource_api_version":"V3"}}}}}},
"typed_extension_protocol_options":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
 "explicit_http_config":{"http2_protocol_options":{"allow_connect":true}}}}}`

// internalCluster leads to an internal listener.
func internalCluster(listener string) string {
	name := listener
	if listener == "connect_originate" {
		name = "encap"
	}
	return `{"name":"` + name + `","type":"STATIC","load_assignment":{"cluster_name":"` + name + `","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{
"envoy_internal_address":{"server_listener_name":"` + listener + `"}}}}]}]}}`
}

// manager is an HTTP chain's filter.
func (b *bed) manager(prefix string) string {
	filters := router
	if b.filters != "" {
		filters = b.filters + "," + router
	}
	return `{"name":"envoy.filters.network.http_connection_manager","typed_config":{
"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"stat_prefix":"` + prefix + `","rds":{"route_config_name":"` + service + `","config_source":{"ads":{},"resource_api_version":"V3"}},
"server_name":"istio-envoy","upgrade_configs":[{"upgrade_type":"websocket"}],"http_filters":[` + filters + `]}}`
}

// gateway is a plain HTTP listener.
func (b *bed) gateway() string {
	return `{"name":"0.0.0.0_8080","address":{"socket_address":{"address":"127.0.0.1","port_value":0}},
"filter_chains":[{"filters":[` + b.manager("outbound_0.0.0.0_8080") + `]}]}`
}

// mainInternal has the chains behind the tunnels.
func (b *bed) mainInternal() string {
	chain := func(name string) string {
		return `{"action":{"name":"` + name + `","typed_config":{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"` + name + `"}}}`
	}
	rangeOf := func(address, port, chain string) string {
		return `{"ranges":[{"address_prefix":"` + address + `","prefix_len":32}],"on_match":{"matcher":{"matcher_tree":{
"input":{"name":"port","typed_config":{"@type":"type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput"}},
"exact_match_map":{"map":{"` + port + `":` + chain + `}}}}}}`
	}
	return `{"name":"main_internal","internal_listener":{},
"listener_filters":[{"name":"envoy.filters.listener.original_dst","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}}],
"filter_chain_matcher":{"matcher_tree":{
 "input":{"name":"ip","typed_config":{"@type":"type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput"}},
 "custom_match":{"name":"ip","typed_config":{"@type":"type.googleapis.com/xds.type.matcher.v3.IPMatcher","range_matchers":[
  ` + rangeOf("10.96.0.1", "9080", chain("http")) + `,` + rangeOf("10.96.0.2", "9000", chain("tcp")) + `]}}}},
"filter_chains":[
 {"name":"http","filters":[` + b.manager("inbound_0.0.0.0_9080;") + `]},
 {"name":"tcp","filters":[` + b.networkFilters() + `{"name":"envoy.filters.network.tcp_proxy","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
  "stat_prefix":"inbound-vip|9000|tcp|` + host + `","cluster":"` + service + `"}}]}]}`
}

func (b *bed) networkFilters() string {
	if b.network == "" {
		return ""
	}
	return b.network + ","
}

// cluster is one whose hosts come by EDS.
func (b *bed) cluster(name string) string {
	breakers := ""
	if b.breakers != "" {
		breakers = `"circuit_breakers":{"thresholds":[{` + b.breakers + `}]},`
	}
	return `{"name":"` + name + `","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{},"resource_api_version":"V3"},"service_name":"` + name + `"},
"lb_policy":"LEAST_REQUEST","connect_timeout":"30s",` + breakers + `
"metadata":{"filter_metadata":{"isthmus.mesh":{` + b.own + `}}},
"transport_socket_matches":[` + b.sockets + `
 {"name":"hbone","match":{"tunnel":"h2"},"transport_socket":{"name":"envoy.transport_sockets.internal_upstream","typed_config":{
  "@type":"type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
  "passthrough_metadata":[{"kind":{"host":{}},"name":"envoy.filters.listener.original_dst"}],
  "transport_socket":{"name":"envoy.transport_sockets.raw_buffer","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}},
 {"name":"tlsMode-disabled","match":{},"transport_socket":{"name":"envoy.transport_sockets.raw_buffer","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}],
"typed_extension_protocol_options":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
 ` + b.protocol + `}}}`
}

const (
	upstreamHTTP1 = `"explicit_http_config":{"http_protocol_options":{}}`
	upstreamHTTP2 = `"explicit_http_config":{"http2_protocol_options":{}}`
	upstreamSame  = `"use_downstream_protocol_config":{"http_protocol_options":{},"http2_protocol_options":{}}`
)

// assignment is the hosts of a cluster, all HBONE.
func assignment(cluster string, hosts []*backend) string {
	var endpoints []string
	for _, h := range hosts {
		at := h.ip + ":9080"
		endpoints = append(endpoints, fmt.Sprintf(`{"endpoint":{"address":{"envoy_internal_address":{"server_listener_name":"connect_originate","endpoint_id":"%s"}}},
"metadata":{"filter_metadata":{"envoy.filters.listener.original_dst":{"local":"%s"},"envoy.transport_socket_match":{"tunnel":"h2"},
 "istio":{"workload":"%s;default;%s;v1;Kubernetes"},"isthmus.mesh":{"identity":"spiffe://cluster.local/ns/default/sa/%s"}}},
"load_balancing_weight":1}`, at, at, h.account, h.account, h.expected()))
	}
	return `{"cluster_name":"` + cluster + `","endpoints":[{"lb_endpoints":[` + strings.Join(endpoints, ",") + `],"load_balancing_weight":1}]}`
}
