package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	listenerproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	socketproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// applyProxyProtocol tells endpoints of the client by the PROXY protocol, whatever else is spoken to them.
func (c Cluster) applyProxyProtocol(out *clusterv3.Cluster) {
	p := c.Policy.GetProxyProtocol()
	if p == nil || c.Proxyless {
		return
	}
	version := corev3.ProxyProtocolConfig_V1
	if p.GetVersion() == networkingapi.TrafficPolicy_ProxyProtocol_V2 {
		version = corev3.ProxyProtocolConfig_V2
	}
	wrap := func(inner *corev3.TransportSocket) *corev3.TransportSocket {
		return transportSocket("envoy.transport_sockets.upstream_proxy_protocol", &socketproxyv3.ProxyProtocolUpstreamTransport{
			Config: &corev3.ProxyProtocolConfig{Version: version}, TransportSocket: inner,
		})
	}
	for _, m := range out.TransportSocketMatches {
		m.TransportSocket = wrap(m.TransportSocket)
	}
	if out.TransportSocket != nil {
		out.TransportSocket = wrap(out.TransportSocket)
	}
}

// proxyProtocolFilter takes who the client is from the proxy before this one; connections without that are refused.
func proxyProtocolFilter() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.proxy_protocol",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&listenerproxyv3.ProxyProtocol{})},
	}
}
