package l7

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// What is not supported is refused with the path of the field.
func TestRefused(t *testing.T) {
	route := func(inner string) string {
		return `{'name': 'r', 'virtual_hosts': [{'name': 'v', 'domains': ['*'], 'routes': [{'match': {'prefix': '/'}, ` + inner + `}]}]}`
	}
	for _, c := range []struct{ text, want string }{
		{`{'name': 'r', 'vhds': {}}`, "vhds: is not supported"},
		{route(`'route': {'cluster_header': 'x'}`), "virtual_hosts[0].routes[0].route.cluster_header: is not supported"},
		{route(`'route': {'cluster': 'c', 'hedge_policy': {}}`), "virtual_hosts[0].routes[0].route.hedge_policy: is not supported"},
		{route(`'route': {'cluster': ''}`), "virtual_hosts[0].routes[0].route.cluster: is required"},
		{route(`'route': {'weighted_clusters': {'clusters': [{'name': 'a', 'weight': 0}]}}`), "virtual_hosts[0].routes[0].route.weighted_clusters: the sum of the weights"},
		{route(`'route': {'cluster': 'c', 'regex_rewrite': {'pattern': {'regex': '('}, 'substitution': 'x'}}`), "virtual_hosts[0].routes[0].route.regex_rewrite.pattern.regex: error parsing"},
		{route(`'route': {'cluster': 'c', 'regex_rewrite': {'pattern': {'regex': 'a'}, 'substitution': '\\1'}}`), "virtual_hosts[0].routes[0].route.regex_rewrite.substitution:"},
		{route(`'route': {'cluster': 'c'}, 'request_headers_to_add': [{'header': {'key': 'host', 'value': 'x'}}]`), "virtual_hosts[0].routes[0].request_headers_to_add[0].header.key: :-prefixed or host"},
		{route(`'route': {'cluster': 'c'}, 'response_headers_to_add': [{'header': {'key': 'x', 'value': '%NOPE%'}}]`), `virtual_hosts[0].routes[0].response_headers_to_add[0].header.value: format command "NOPE"`},
		{route(`'route': {'cluster': 'c'}, 'tracing': {}`), "virtual_hosts[0].routes[0].tracing: is not supported"},
		{route(`'non_forwarding_action': {}`), "virtual_hosts[0].routes[0].non_forwarding_action: is not supported"},
		{route(`'direct_response': {'status': 42}`), "virtual_hosts[0].routes[0].direct_response.status: 42"},
		{route(`'route': {'cluster': 'c'}, ` + perFault(`'max_active_faults': 1`)), `virtual_hosts[0].routes[0].typed_per_filter_config["envoy.filters.http.fault"].max_active_faults: is not supported`},
		{route(`'route': {'cluster': 'c'}, ` + perFault(`'delay': {'header_delay': {}, 'percentage': {}}`)), `virtual_hosts[0].routes[0].typed_per_filter_config["envoy.filters.http.fault"].delay.header_delay: is not supported`},
		{`{'name': 'r', 'virtual_hosts': [{'name': 'v', 'domains': ['*'], 'routes': [{'match': {'prefix': '/', 'headers': [{'name': 'a', 'string_match': {'safe_regex': {'regex': '['}}}]}, 'route': {'cluster': 'c'}}]}]}`, "virtual_hosts[0].routes[0].match.headers[0].string_match.safe_regex.regex:"},
		{`{'name': 'r', 'virtual_hosts': [{'name': 'v', 'domains': ['*'], 'routes': [{'match': {'path_separated_prefix': '/a/'}, 'route': {'cluster': 'c'}}]}]}`, "virtual_hosts[0].routes[0].match.path_separated_prefix:"},
	} {
		_, err := CompileRoutes(parse(t, &routev3.RouteConfiguration{}, c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestRefusedListenersAndClusters(t *testing.T) {
	hcm := func(h string) string {
		return `{'name': 'l', 'address': {'socket_address': {'address': '0.0.0.0', 'port_value': 80}}, 'filter_chains': [{'filters': [` + h + `]}]}`
	}
	const at = "filter_chains[0].filters[0].typed_config."
	for _, c := range []struct{ text, want string }{
		{hcm(manager("'tracing': {'verbose': true}", "", vhost(""))), at + "tracing.verbose: is not supported"},
		{hcm(manager("'local_reply_config': {}", "", vhost(""))), at + "local_reply_config: is not supported"},
		{hcm(manager("'codec_type': 'HTTP3'", "", vhost(""))), at + "codec_type: HTTP3"},
		{hcm(strings.ReplaceAll(manager("", "", vhost("")), routerAny, "")), at + "http_filters: must end with the router"},
		{hcm(manager("", routerAny, vhost(""))), at + "http_filters[1]: comes after the router"},
		{strings.Replace(terminate, "@PEER@", "%REQ(x-forged)%", 1), at + "http_filters[0].typed_config.on_request_headers[1].format_string:"},
		{`{'name': 'l', 'address': {'socket_address': {'address': 'nope', 'port_value': 80}}, 'filter_chains': [` + tcpChain("x") + `]}`, "address.socket_address.address:"},
		{`{'name': 'l', 'udp_listener_config': {}}`, "udp_listener_config: is not supported"},
		{`{'name': 'l', 'internal_listener': {}, 'filter_chains': [{'filters': []}]}`, "filter_chains[0].filters: must end with"},
		{strings.Replace(mainInternal(), "'value': 'plain'", "'value': 'nope'", 1), "filter_chain_matcher.matcher_tree.custom_match.typed_config.range_matchers[0].on_match.matcher.matcher_tree.exact_match_map.map[\"80\"].action.typed_config: no filter chain"},
	} {
		_, err := CompileListener(parse(t, &listenerv3.Listener{}, c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{`{'name': 'c', 'health_checks': [{}]}`, "health_checks: is not supported"},
		{`{'name': 'c', 'outlier_detection': {}}`, "outlier_detection.enforcing_success_rate: must be 0"},
		{`{'name': 'c', 'lb_subset_config': {}}`, "lb_subset_config: is not supported"},
		{`{'name': 'c', 'type': 'STATIC', 'load_assignment': {'cluster_name': 'c', 'endpoints': [{'lb_endpoints': [{'endpoint': {'address': {'pipe': {'path': '/x'}}}}]}]}}`, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.pipe: is not supported"},
		{`{'name': 'c', 'type': 'STATIC', 'load_assignment': {'cluster_name': 'c', 'endpoints': [{'lb_endpoints': [{'endpoint': {'address': {'socket_address': {'address': 'a.b', 'port_value': 1}}}}]}]}}`, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address:"},
		{`{'name': 'c', 'type': 'EDS', 'typed_extension_protocol_options': {'x': {'@type': '` + typeURL + `extensions.filters.http.router.v3.Router'}}}`, `typed_extension_protocol_options["x"]: type envoy.extensions`},
	} {
		_, err := CompileCluster(parse(t, &clusterv3.Cluster{}, c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
}

// Clusters: defaults are Envoy's.
func TestCluster(t *testing.T) {
	c, err := CompileCluster(parse(t, &clusterv3.Cluster{}, `{'name': 'outbound|80||h', 'type': 'EDS', 'lb_policy': 'LEAST_REQUEST', 'connect_timeout': '10s',
		'circuit_breakers': {'thresholds': [{'priority': 'HIGH', 'max_requests': 1}, {'max_connections': 5, 'retry_budget': {'budget_percent': {'value': 25}}}]},
		'outlier_detection': {'consecutive_5xx': 3, 'enforcing_success_rate': 0, 'enforcing_consecutive_gateway_failure': 100, 'base_ejection_time': '1s'},
		'transport_socket_matches': [{'name': 'hbone', 'match': {'tunnel': 'h2'}, 'transport_socket': {'name': 'i', 'typed_config': {'@type': '`+typeURL+`extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport', 'transport_socket': {'name': 'r', 'typed_config': {'@type': '`+typeURL+`extensions.transport_sockets.raw_buffer.v3.RawBuffer'}}}}},
			{'name': 'tlsMode-disabled', 'match': {}, 'transport_socket': {'name': 'r', 'typed_config': {'@type': '`+typeURL+`extensions.transport_sockets.raw_buffer.v3.RawBuffer'}}}],
		'metadata': {'filter_metadata': {'istio': {'services': [{'host': 'h', 'name': 'n', 'namespace': 'ns'}], 'subset': 'v1'}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.EDSName != "outbound|80||h" || c.LB.Policy != LBLeastRequest || c.LB.Choices != 2 || c.LB.PanicThreshold != 50 || c.HTTP != UpstreamHTTP1 || c.Subset != "v1" || c.Services[0] != (Service{"h", "n", "ns"}) {
		t.Errorf("%+v", c)
	}
	if b := c.Breakers; b.MaxConnections != 5 || b.MaxRequests != 1024 || b.BudgetPercent != 25 || b.MinRetries != 3 {
		t.Errorf("%+v", b)
	}
	if o := c.Outlier; o.Consecutive5xx != 3 || o.ConsecutiveGateway != 5 || o.ConsecutiveLocal != 0 || o.MaxEjectionPercent != 10 {
		t.Errorf("%+v", o)
	}
	if c.SocketFor(&Endpoint{SocketMatch: map[string]string{"tunnel": "h2"}}).Kind != SocketInternal || c.SocketFor(&Endpoint{}).Kind != SocketRaw {
		t.Error("the socket of an endpoint")
	}
}
