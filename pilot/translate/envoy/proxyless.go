package envoy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// ProxylessListener is what a gRPC client asks for that dials host:port by xds:///.
func ProxylessListener(host string, port uint32) *listenerv3.Listener {
	h := withRDS(&hcmv3.HttpConnectionManager{
		StatPrefix:  Outbound(port, "", host),
		HttpFilters: []*hcmv3.HttpFilter{routerFilter()},
	}, Outbound(port, "", host))
	return &listenerv3.Listener{
		Name:        host + ":" + number(port),
		ApiListener: &listenerv3.ApiListener{ApiListener: pack(h)},
	}
}

// ProxylessRoutes are the routes of a service for a gRPC client: those given, for the one host that the client dials.
func ProxylessRoutes(host string, port uint32, routes []*routev3.Route) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: Outbound(port, "", host),
		VirtualHosts: []*routev3.VirtualHost{{
			Name: host + ":" + number(port), Domains: []string{"*"}, Routes: routes,
		}},
	}
}
