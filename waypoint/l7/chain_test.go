package l7

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

const (
	netInput   = "'typed_config': {'@type': '" + typeURL + "extensions.matching.common_inputs.network.v3."
	tlsContext = `'common_tls_context': {'alpn_protocols': ['h2'], 'tls_params': {'tls_minimum_protocol_version': 'TLSv1_3', 'tls_maximum_protocol_version': 'TLSv1_3'},
		'tls_certificate_sds_secret_configs': [{'name': 'default'}], 'combined_validation_context': {'default_validation_context': {'match_typed_subject_alt_names':
		[{'san_type': 'URI', 'matcher': {'prefix': 'spiffe://td/'}}]}, 'validation_context_sds_secret_config': {'name': 'ROOTCA'}}}`
	terminate = `{'name': 'connect_terminate', 'address': {'socket_address': {'address': '0.0.0.0', 'port_value': 15008}}, 'filter_chains': [{'name': 'default',
		'transport_socket': {'name': 'tls', 'typed_config': {'@type': '` + typeURL + `extensions.transport_sockets.tls.v3.DownstreamTlsContext', 'require_client_certificate': true, ` + tlsContext + `}},
		'filters': [{'name': 'hcm', 'typed_config': {'@type': '` + typeURL + `extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', 'stat_prefix': 'connect_terminate',
		'codec_type': 'HTTP2', 'http2_protocol_options': {'allow_connect': true, 'max_concurrent_streams': 100, 'connection_keepalive': {'interval': '10s', 'timeout': '20s'}},
		'upgrade_configs': [{'upgrade_type': 'CONNECT'}], 'http_filters': [{'name': 'connect_authority', 'typed_config': {'@type': '` + typeURL + `extensions.filters.http.set_filter_state.v3.Config',
		'on_request_headers': [{'object_key': 'envoy.filters.listener.original_dst.local_ip', 'format_string': {'text_format_source': {'inline_string': '%REQ(:AUTHORITY)%'}}, 'shared_with_upstream': 'ONCE'},
		{'object_key': 'io.istio.peer_principal', 'factory_key': 'envoy.string', 'format_string': {'text_format_source': {'inline_string': '@PEER@'}}, 'shared_with_upstream': 'ONCE'}]}}, ` + routerAny + `],
		'route_config': {'name': 'default', 'virtual_hosts': [{'name': 'default', 'domains': ['*'], 'routes': [{'match': {'connect_matcher': {}},
		'route': {'cluster': 'main_internal', 'upgrade_configs': [{'upgrade_type': 'CONNECT', 'connect_config': {}}]}}]}]}}}]}]}`
	originate = `{'name': 'connect_originate', 'internal_listener': {}, 'listener_filters': [{'name': 'o', 'typed_config': {'@type': '` + typeURL + `extensions.filters.listener.original_dst.v3.OriginalDst'}}],
		'filter_chains': [{'filters': [{'name': 't', 'typed_config': {'@type': '` + typeURL + `extensions.filters.network.tcp_proxy.v3.TcpProxy', 'stat_prefix': 'x', 'cluster': 'connect_originate',
		'tunneling_config': {'hostname': '%DOWNSTREAM_LOCAL_ADDRESS%'}}}]}]}`
	originateCluster = `{'name': 'connect_originate', 'type': 'ORIGINAL_DST', 'lb_policy': 'CLUSTER_PROVIDED', 'original_dst_lb_config': {'upstream_port_override': 15008,
		'metadata_key': {'key': 'envoy.filters.listener.original_dst', 'path': [{'key': 'waypoint'}]}},
		'transport_socket': {'name': 'tls', 'typed_config': {'@type': '` + typeURL + `extensions.transport_sockets.tls.v3.UpstreamTlsContext', ` + tlsContext + `}},
		'typed_extension_protocol_options': {'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {'@type': '` + typeURL + `extensions.upstreams.http.v3.HttpProtocolOptions',
		'explicit_http_config': {'http2_protocol_options': {'connection_keepalive': {'interval': '10s', 'timeout': '20s'}}}}}}`
	internalCluster = `{'name': 'main_internal', 'type': 'STATIC', 'load_assignment': {'cluster_name': 'main_internal', 'endpoints': [{'lb_endpoints': [{'endpoint': {'address':
		{'envoy_internal_address': {'server_listener_name': 'main_internal'}}}}]}]}, 'transport_socket': {'name': 'i', 'typed_config': {'@type':
		'` + typeURL + `extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport', 'transport_socket': {'name': 'r', 'typed_config': {'@type': '` + typeURL + `extensions.transport_sockets.raw_buffer.v3.RawBuffer'}}}}}`
)

func leaf(name string) string {
	return `'action': {'name': 'a', 'typed_config': {'@type': 'type.googleapis.com/google.protobuf.StringValue', 'value': '` + name + `'}}`
}

func tcpChain(name string) string {
	return `{'name': '` + name + `', 'filters': [{'name': 't', 'typed_config': {'@type': '` + typeURL + `extensions.filters.network.tcp_proxy.v3.TcpProxy', 'stat_prefix': 'x', 'cluster': '` + name + `'}}]}`
}

// mainInternal has a service on 10.0.0.1 (80 and, sniffed, 81), everything else of 10.0.0.0/24, and a workload on any port.
func mainInternal() string {
	byProtocol := `'matcher': {'matcher_tree': {'input': {'name': 'p', ` + netInput + `ApplicationProtocolInput'}}, 'exact_match_map': {'map': {'\'http/1.1\'': {` + leaf("http") + `}, '\'h2c\'': {` + leaf("http") + `}}}},
		'on_no_match': {` + leaf("tcp") + `}}`
	byPort := `'matcher': {'matcher_tree': {'input': {'name': 'port', ` + netInput + `DestinationPortInput'}}, 'exact_match_map': {'map': {'80': {` + leaf("plain") + `}, '81': {` + byProtocol + `}}}}}`
	ranges := `{'ranges': [{'address_prefix': '10.0.0.1', 'prefix_len': 32}], 'on_match': {` + byPort + `}}, {'ranges': [{'address_prefix': '10.0.0.0', 'prefix_len': 24}], 'on_match': {` + leaf("net") + `}},
		{'ranges': [{'address_prefix': 'fd00::1', 'prefix_len': 128}], 'on_match': {` + byProtocol + `}}`
	text := `{'name': 'main_internal', 'internal_listener': {}, 'listener_filters': [{'name': 'h', 'typed_config': {'@type': '` + typeURL + `extensions.filters.listener.http_inspector.v3.HttpInspector'},
		'filter_disabled': {'not_match': {'or_match': {'rules': [{'destination_port_range': {'start': 81, 'end': 82}}, {'destination_port_range': {'start': 5, 'end': 6}}]}}}}],
		'filter_chain_matcher': {'matcher_tree': {'input': {'name': 'ip', ` + netInput + `DestinationIPInput'}}, 'custom_match': {'name': 'ip', 'typed_config': {'@type': 'type.googleapis.com/xds.type.matcher.v3.IPMatcher', 'range_matchers': [` + ranges + `]}}}},
		'filter_chains': [` + tcpChain("plain") + `,` + tcpChain("http") + `,` + tcpChain("tcp") + `,` + tcpChain("net") + `]}`
	// parse makes every single quote a double one: those inside keys are meant.
	return strings.ReplaceAll(text, `\'`, "\\u0027")
}

func waypoint(t *testing.T) *Config {
	t.Helper()
	u := Update{Listeners: map[string]*Listener{}, Clusters: map[string]*Cluster{}}
	for _, text := range []string{strings.Replace(terminate, "@PEER@", "%DOWNSTREAM_PEER_URI_SAN%", 1), originate, mainInternal()} {
		l, err := CompileListener(parse(t, &listenerv3.Listener{}, text))
		if err != nil {
			t.Fatal(err)
		}
		u.Listeners[l.Name] = l
	}
	for _, text := range []string{originateCluster, internalCluster} {
		c, err := CompileCluster(parse(t, &clusterv3.Cluster{}, text))
		if err != nil {
			t.Fatal(err)
		}
		u.Clusters[c.Name] = c
	}
	return NewConfig().With(u)
}

// The three listeners of a waypoint: CONNECTs end in the first, the second finds the service, the third is the way to the pod.
func TestWaypointListeners(t *testing.T) {
	cfg := waypoint(t)
	ch, ok := cfg.Chain("connect_terminate", &Conn{}, ProtocolUnknown)
	if !ok || ch.Terminate == nil || cfg.InternalListener(ch.Terminate.Cluster) != "main_internal" || ch.Terminate.HTTP.HTTP2.MaxStreams != 100 {
		t.Fatalf("%+v", ch)
	}
	if s := ch.TLS; !slices.Equal(s.Certificates, []string{"default"}) || s.Validation != "ROOTCA" || !s.RequireClient || len(s.PeerSANs) != 1 || !s.PeerSANs[0].Matcher.Match("spiffe://td/ns/a/sa/b") || s.PeerSANs[0].Matcher.Match("spiffe://tdx") {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct {
		to    string
		sniff bool
		seen  Protocol
		want  string
	}{
		{"10.0.0.1:80", false, ProtocolUnknown, "plain"},
		{"10.0.0.1:81", true, ProtocolHTTP1, "http"},
		{"10.0.0.1:81", true, ProtocolHTTP2, "http"},
		{"10.0.0.1:81", true, ProtocolUnknown, "tcp"},
		{"10.0.0.1:82", false, ProtocolUnknown, "net"}, // no such port at the longest prefix: the next one
		{"10.0.0.7:5", false, ProtocolUnknown, "net"},
		{"10.0.1.1:80", false, ProtocolUnknown, ""},
		{"[::ffff:10.0.0.1]:80", false, ProtocolUnknown, "plain"},
		{"[fd00::1]:5", true, ProtocolHTTP1, "http"},
		{"[fd00::1]:6", false, ProtocolUnknown, "tcp"},
	} {
		conn := &Conn{Destination: netip.MustParseAddrPort(c.to)}
		if got := cfg.NeedsSniff("main_internal", conn); got != c.sniff {
			t.Errorf("%s: sniff %v", c.to, got)
		}
		name := ""
		if ch, ok := cfg.Chain("main_internal", conn, c.seen); ok {
			name = ch.Name
		}
		if name != c.want {
			t.Errorf("%s: %q, want %q", c.to, name, c.want)
		}
	}
}

// A pod is reached at port 15008 of its address, or through the waypoint it names; what the CONNECT asks for is the pod's port.
func TestTunnel(t *testing.T) {
	cfg := waypoint(t)
	pod := func(metadata string) string {
		return `{'endpoint': {'address': {'envoy_internal_address': {'server_listener_name': 'connect_originate', 'endpoint_id': 'x'}}}, 'metadata': {'filter_metadata': {` + metadata + `}}}`
	}
	eps, err := compileCLA(t, `{'cluster_name': 'c', 'endpoints': [{'locality': {'zone': 'z'}, 'load_balancing_weight': 3, 'lb_endpoints': [`+
		pod(`'envoy.filters.listener.original_dst': {'local': '10.0.0.9:80'}, 'isthmus.mesh': {'identity': 'spiffe://td/ns/a/sa/b'}, 'envoy.transport_socket_match': {'tunnel': 'h2'}, 'istio': {'workload': 'w;ns;w;v1;k'}`)+`,`+
		pod(`'envoy.filters.listener.original_dst': {'local': '10.0.0.8:80', 'waypoint': '10.3.3.3:15008'}`)+`,`+pod("")+`]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	conn := &Conn{Destination: netip.MustParseAddrPort("10.5.5.5:9000")}
	for i, want := range []string{"10.0.0.9:15008 10.0.0.9:80 spiffe://td/ns/a/sa/b", "10.3.3.3:15008 10.0.0.8:80 ", "10.5.5.5:15008 10.5.5.5:9000 "} {
		tun, ok := cfg.Tunnel(eps.List[i], conn)
		if got := tun.Address.String() + " " + tun.Authority + " " + tun.Identity; !ok || got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if e := eps.List[0]; e.Locality.Zone != "z" || e.LocalityWeight != 3 || e.Workload != "w;ns;w;v1;k" || e.SocketMatch["tunnel"] != "h2" || e.Weight != 1 {
		t.Errorf("%+v", e)
	}
	if _, ok := NewConfig().Tunnel(eps.List[0], conn); ok {
		t.Error("a way without a listener")
	}
	if a, b := eps.List[0].Key(), eps.List[1].Key(); a == b {
		t.Error("two hosts with one key")
	}
}

// filter_chain_match: the most specific server name wins; without a match there is the default.
func TestFilterChainMatch(t *testing.T) {
	with := func(name, m string) string {
		return strings.Replace(tcpChain(name), "{'name'", "{'filter_chain_match': {"+m+"}, 'name'", 1)
	}
	l, err := CompileListener(parse(t, &listenerv3.Listener{}, `{'name': 'l', 'address': {'socket_address': {'address': '::', 'port_value': 443, 'ipv4_compat': true}},
		'listener_filters': [{'name': 't', 'typed_config': {'@type': '`+typeURL+`extensions.filters.listener.tls_inspector.v3.TlsInspector'}}],
		'filter_chains': [`+with("wild", "'server_names': ['*.example.com'], 'transport_protocol': 'tls'")+`,`+with("exact", "'server_names': ['a.example.com']")+`,`+
		with("plain", "'transport_protocol': 'raw_buffer'")+`,`+with("office", "'source_prefix_ranges': [{'address_prefix': '192.0.2.0', 'prefix_len': 24}], 'transport_protocol': 'raw_buffer'")+`],
		'default_filter_chain': `+tcpChain("default")+`}`))
	if err != nil {
		t.Fatal(err)
	}
	cfg := NewConfig().With(Update{Listeners: map[string]*Listener{"l": l}})
	if !l.NeedsSNI(&Conn{}) || len(l.Addresses) != 1 || !l.Addresses[0].Dual {
		t.Errorf("%+v", l)
	}
	for _, c := range []struct{ sni, from, want string }{
		{"a.example.com", "10.0.0.1:1", "exact"},
		{"b.example.com", "10.0.0.1:1", "wild"},
		{"B.Example.com", "10.0.0.1:1", "wild"},
		{"example.com", "10.0.0.1:1", "default"},
		{"", "10.0.0.1:1", "plain"},
		{"", "192.0.2.7:1", "office"},
	} {
		ch, _ := cfg.Chain("l", &Conn{SNI: c.sni, Source: netip.MustParseAddrPort(c.from), Destination: netip.MustParseAddrPort("10.0.0.2:443")}, ProtocolUnknown)
		if ch.Name != c.want {
			t.Errorf("%q from %s: %s, want %s", c.sni, c.from, ch.Name, c.want)
		}
	}
}

// A TCP chain asks its policies, then draws among its clusters.
func TestTCP(t *testing.T) {
	l, err := CompileListener(parse(t, &listenerv3.Listener{}, `{'name': 'l', 'address': {'socket_address': {'address': '127.0.0.1', 'port_value': 1}}, 'filter_chains': [{'name': 'c', 'filters': [
		{'name': 'r', 'typed_config': {'@type': '`+typeURL+`extensions.filters.network.rbac.v3.RBAC', 'stat_prefix': 'x', 'rules': {'action': 'DENY', 'policies': {'p': {'permissions': [{'destination_port': 99}], 'principals': [{'any': true}]}}}}},
		{'name': 't', 'typed_config': {'@type': '`+typeURL+`extensions.filters.network.tcp_proxy.v3.TcpProxy', 'stat_prefix': 'x', 'weighted_clusters': {'clusters': [{'name': 'up', 'weight': 1}, {'name': 'gone', 'weight': 1}]}, 'hash_policy': [{'source_ip': {}}]}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, manager("", "", vhost("")))
	cfg := w.cfg.With(Update{Listeners: map[string]*Listener{"t": l}})
	ch, _ := cfg.Chain("t", &w.conn, ProtocolUnknown)
	seen := map[string]int{}
	for range 1000 {
		d := cfg.DecideTCP(ch, &w.conn, w.rnd)
		seen[d.ClusterName]++
		if (d.Cluster == nil) != (d.Flags == FlagNoCluster) || d.Cluster != nil && !d.HashOK {
			t.Fatalf("%+v", d)
		}
	}
	if seen["up"] < 400 || seen["gone"] < 400 {
		t.Error(seen)
	}
	w.conn.Destination = netip.MustParseAddrPort("10.0.0.1:99")
	if d := cfg.DecideTCP(ch, &w.conn, w.rnd); !d.Denied || d.Details != "rbac_access_denied_matched_policy[p]" {
		t.Errorf("%+v", d)
	}
}

// TestServerNamesInLists is the tree that pilot makes of sniHosts: exact names, then the ends of names in their order.
func TestServerNamesInLists(t *testing.T) {
	c := &treeNode{input: inputServerName, exact: map[string]*treeNode{"a.test": {chain: &Chain{Name: "exact"}}}, other: &treeNode{
		input: inputServerName, suffixes: []suffixNode{
			{text: ".deep.test", node: &treeNode{chain: &Chain{Name: "deep"}}},
			{text: ".test", node: &treeNode{chain: &Chain{Name: "wild"}}},
			{text: "last", exact: true, node: &treeNode{chain: &Chain{Name: "last"}}},
		}, other: &treeNode{chain: &Chain{Name: "other"}},
	}}
	for name, want := range map[string]string{"a.test": "exact", "A.Test": "exact", "x.deep.test": "deep", "deep.test": "wild", "last": "last", "at.last": "other", "": "other"} {
		if got := c.find(&Conn{SNI: name}, ProtocolUnknown); got == nil || got.Name != want {
			t.Errorf("%q: %+v, want %s", name, got, want)
		}
	}
}

// TestClientsAreJudgedBySomebody: no listener asks for certificates that nobody verifies.
func TestClientsAreJudgedBySomebody(t *testing.T) {
	const own = `'tls_certificate_sds_secret_configs': [{'name': 'default'}]`
	for name, c := range map[string]struct{ context, want string }{
		"required, of anybody": {`'require_client_certificate': true, 'common_tls_context': {` + own + `}`, "needs trusted_ca"},
		"names, of anybody": {`'common_tls_context': {` + own + `, 'validation_context': {'match_typed_subject_alt_names':
			[{'san_type': 'DNS', 'matcher': {'exact': 'a'}}]}}`, "needs trusted_ca"},
		"pins, of anybody": {`'common_tls_context': {` + own + `, 'validation_context': {'verify_certificate_spki':
			['AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=']}}`, "needs trusted_ca"},
		"nothing to trust": {`'common_tls_context': {` + own + `, 'validation_context': {'trusted_ca': {'inline_string': ''}}}`, "trusted_ca"},
		"not asked":        {`'common_tls_context': {` + own + `}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &tlsv3.DownstreamTlsContext{}
			parse(t, p, "{"+c.context+"}")
			_, err := compileServerTLS(p)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
