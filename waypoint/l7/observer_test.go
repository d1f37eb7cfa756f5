package l7

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// structured is a filter's configuration that comes as a structure.
func structured(name, inner, value string) string {
	return `{'name': '` + name + `', 'typed_config': {'@type': 'type.googleapis.com/udpa.type.v1.TypedStruct', 'type_url': 'type.googleapis.com/` + inner + `', 'value': {` + value + `}}}`
}

func counts(fields string) string {
	return `{'name': 'istio.stats', 'typed_config': {'@type': 'type.googleapis.com/stats.PluginConfig', 'reporter': 'SERVER_GATEWAY', 'tcp_reporting_duration': '5s', 'disable_host_header_fallback': true` + fields + `}}`
}

const (
	httpDiscovery = "io.istio.http.peer_metadata.Config"
	tcpDiscovery  = "envoy.tcp.metadataexchange.config.MetadataExchange"
	discovery     = `'downstream_discovery': [{'workload_discovery': {}}], 'shared_with_upstream': true`
)

// kept is an entry of set_filter_state as Istio's control plane writes it.
func kept(key, factory, format string) string {
	if factory != "" {
		factory = `'factory_key': '` + factory + `', `
	}
	return `{'object_key': '` + key + `', ` + factory + `'format_string': {'text_format_source': {'inline_string': '` + format + `'}}, 'shared_with_upstream': 'ONCE'}`
}

// plainListener has one chain with the filters.
func plainListener(filters string) string {
	return `{'name': 'l', 'internal_listener': {}, 'filter_chains': [{'name': 'c', 'filters': [` + filters + `]}]}`
}

func tcpFilter(name string) string {
	return `{'name': 't', 'typed_config': {'@type': '` + typeURL + `extensions.filters.network.tcp_proxy.v3.TcpProxy', 'stat_prefix': 'x', 'cluster': '` + name + `'}}`
}

func netState(format string) string {
	return `{'name': 'connect_authority', 'typed_config': {'@type': '` + typeURL + `extensions.filters.network.set_filter_state.v3.Config', 'on_new_connection': [` +
		kept("envoy.filters.listener.original_dst.local_ip", "", format) + `]}}`
}

// tunnelEnd is the listener at which tunnels end, with an HTTP filter before the others and a further entry of state.
func tunnelEnd(filter, state string) string {
	text := strings.Replace(terminate, "@PEER@", "%DOWNSTREAM_PEER_URI_SAN%", 1)
	text = strings.Replace(text, "'envoy.string'", "'istio.hashable_string'", 1)
	text = strings.Replace(text, `'http_filters': [`, `'http_filters': [`+filter+`, `, 1)
	return strings.Replace(text, `'on_request_headers': [`, `'on_request_headers': [`+state+`, `, 1)
}

// What Istio's control plane has its own build of Envoy do beside serving requests is accepted: the engine does it without being told.
func TestIstiosObservers(t *testing.T) {
	authority := kept("io.istio.connect_authority", "istio.hashable_string", "%REQ(:AUTHORITY)%")
	for name, text := range map[string]string{
		"where tunnels end": tunnelEnd(structured("waypoint_downstream_peer_metadata", httpDiscovery, discovery), authority),
		"HTTP":              plainListener(manager("", structured("waypoint_upstream_peer_metadata", httpDiscovery, `'upstream_discovery': [{'workload_discovery': {}}]`)+","+counts(""), vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`))),
		"TCP":               plainListener(structured("istio.metadata_exchange", tcpDiscovery, `'protocol': 'istio-peer-exchange', 'enable_discovery': true`) + "," + counts("") + "," + tcpFilter("up")),
		"to a pod":          plainListener(netState("%FILTER_STATE(envoy.filters.listener.original_dst.local_ip:PLAIN)%") + "," + tcpFilter("up")),
	} {
		l, err := CompileListener(parse(t, &listenerv3.Listener{}, text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if h := l.Chains[0].HTTP; h != nil && len(h.filters) > 0 {
			t.Errorf("%s: %d filters do something", name, len(h.filters))
		}
	}
}

// What they would do to requests is not.
func TestIstiosObserversDoNotAct(t *testing.T) {
	const in = "filter_chains[0].filters[0].typed_config"
	for _, c := range []struct{ text, want string }{
		{plainListener(manager("", structured("p", httpDiscovery, discovery+`, 'downstream_propagation': [{'baggage': {}}]`), vhost(""))), in + ".http_filters[0].typed_config.value.downstream_propagation: is not supported"},
		{plainListener(manager("", structured("p", httpDiscovery, `'upstream_propagation': [{'istio_headers': {}}]`), vhost(""))), in + ".http_filters[0].typed_config.value.upstream_propagation: is not supported"},
		{plainListener(manager("", structured("p", "io.istio.http.other.Config", ""), vhost(""))), in + `.http_filters[0].typed_config.type_url: "type.googleapis.com/io.istio.http.other.Config" is not supported`},
		{plainListener(manager("", counts(`, 'metrics': [{'name': 'requests_total', 'drop': true}]`), vhost(""))), in + ".http_filters[0].typed_config.metrics: is not supported"},
		{plainListener(structured("other", "envoy.tcp.other.Config", "") + "," + tcpFilter("up")), in + `.type_url: "type.googleapis.com/envoy.tcp.other.Config" is not supported`},
		{plainListener(netState("%FILTER_STATE(other:PLAIN)%") + "," + tcpFilter("up")), in + ".on_new_connection[0].format_string:"},
		{tunnelEnd(counts(""), kept("io.istio.connect_authority", "istio.hashable_string", "%REQ(x-forged)%")), in + ".http_filters[1].typed_config.on_request_headers[0].format_string:"},
		{tunnelEnd(counts(""), kept("another", "istio.hashable_string", "%REQ(:AUTHORITY)%")), in + ".http_filters[1].typed_config.on_request_headers[0].factory_key:"},
	} {
		_, err := CompileListener(parse(t, &listenerv3.Listener{}, c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
}
