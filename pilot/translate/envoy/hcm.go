package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

const (
	hcmFilter      = "envoy.filters.network.http_connection_manager"
	tcpProxyFilter = "envoy.filters.network.tcp_proxy"
)

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

func networkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(config)}}
}

func routerFilter() *hcmv3.HttpFilter {
	return httpFilter("envoy.filters.http.router", &routerv3.Router{})
}

// requestFilters are those of every chain with routes: what authenticates and authorizes first, then those that routes configure.
func requestFilters(policies []*hcmv3.HttpFilter) []*hcmv3.HttpFilter {
	out := append([]*hcmv3.HttpFilter{}, policies...)
	return append(out,
		httpFilter("envoy.filters.http.fault", &faultv3.HTTPFault{}),
		httpFilter("envoy.filters.http.cors", &corsv3.Cors{}),
		httpFilter(route.SessionFilter, &sessionv3.StatefulSession{}), // sessions are kept where routes say so
		routerFilter())
}

// requestManager is what every chain with routes has in common.
func requestManager(mesh Mesh, statPrefix string, filters []*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	h := &hcmv3.HttpConnectionManager{
		StatPrefix:        statPrefix,
		ServerName:        serverName,
		UseRemoteAddress:  no(),
		HttpFilters:       requestFilters(filters),
		UpgradeConfigs:    []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		StreamIdleTimeout: seconds(0),
		AccessLog:         mesh.accessLogs(),
	}
	// WebSockets over HTTP/2 (RFC 8441); a CONNECT without a protocol finds no route.
	h.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{AllowConnect: true}
	if mesh.acceptsHTTP10() {
		h.HttpProtocolOptions = &corev3.Http1ProtocolOptions{AcceptHttp_10: true}
	}
	mesh.normalizePath(h)
	mesh.trace(h)
	return h
}

// withRDS makes the routes a resource of their own.
func withRDS(h *hcmv3.HttpConnectionManager, name string) *hcmv3.HttpConnectionManager {
	h.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: name}}
	return h
}

func withRoutes(h *hcmv3.HttpConnectionManager, routes *routev3.RouteConfiguration) *hcmv3.HttpConnectionManager {
	h.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
	return h
}

// tcpProxy forwards connections to a cluster.
func tcpProxy(mesh Mesh, statPrefix, cluster string) *listenerv3.Filter {
	return networkFilter(tcpProxyFilter, &tcpv3.TcpProxy{
		StatPrefix:       statPrefix,
		ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster},
		AccessLog:        mesh.accessLogs(),
	})
}
