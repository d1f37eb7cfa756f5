package envoy

import (
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// WaypointService is a port of a service that a waypoint serves.
type WaypointService struct {
	Host      string
	Addresses []netip.Addr
	Port      uint32
	Protocol  Protocol
	// HTTPFilters and NetworkFilters are the policies, for requests and for connections without requests.
	HTTPFilters    []*hcmv3.HttpFilter
	NetworkFilters []*listenerv3.Filter
	// TCP is where connections without requests go: the first that matches, and the last one takes all. None is the service itself.
	TCP []gateway.TCPRoute
}

// tcpChain is the name of the chain of one of the routes of TCP.
func (s WaypointService) tcpChain(i int) string {
	if i == len(s.TCP)-1 {
		return chainName(s, "tcp")
	}
	return chainName(s, "tcp-"+number(uint32(i)))
}

// tcpChainAt is the one of connections without a server name that matters, to one of the addresses.
func (s WaypointService) tcpChainAt(a netip.Addr) string {
	for i, r := range s.TCP {
		if len(r.SNI) == 0 && r.LeadsTo(a) {
			return s.tcpChain(i)
		}
	}
	return chainName(s, "tcp")
}

// byName is whether TLS connections go different ways by their server names.
func (s WaypointService) byName() bool {
	return s.Protocol.TCP() && slices.ContainsFunc(s.TCP, func(r gateway.TCPRoute) bool { return len(r.SNI) > 0 })
}

// WaypointWorkload is a workload that a waypoint serves.
type WaypointWorkload struct {
	Addresses []netip.Addr
	// Ports that have policies or protocols of their own do not exist: a workload is served whole.
	HTTPFilters    []*hcmv3.HttpFilter
	NetworkFilters []*listenerv3.Filter
	// Chain tells workloads apart that have different policies; empty is the one without.
	Chain string
}

// Waypoint is all that the listeners of a waypoint are made from.
type Waypoint struct {
	Mesh     Mesh
	Families Families
	Services []WaypointService
	// Chains are those of the services.
	Chains    []*listenerv3.FilterChain
	Workloads []WaypointWorkload
}

// Listeners of a waypoint.
func (w Waypoint) Listeners() []*listenerv3.Listener {
	return []*listenerv3.Listener{w.connectTerminate(), w.mainInternal(), connectOriginate()}
}

// Keys under which the address that was dialled, and who dialled, go from one listener to the next.
const (
	localAddressKey  = "envoy.filters.listener.original_dst.local_ip"
	remoteAddressKey = "envoy.filters.listener.original_dst.remote_ip"
	// PeerPrincipal is the filter state object that has the client's identity.
	PeerPrincipal = "io.istio.peer_principal"
	// LocalPrincipal is the filter state object that has the identity of the proxy itself.
	LocalPrincipal = "io.istio.local_principal"
)

// passOn puts a formatted value into filter state for the next, internal, connection.
func passOn(key, factory, format string) *filterstatev3.FilterStateValue {
	return &filterstatev3.FilterStateValue{
		Key:        &filterstatev3.FilterStateValue_ObjectKey{ObjectKey: key},
		FactoryKey: factory,
		Value: &filterstatev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: format},
			}},
		}},
		SharedWithUpstream: filterstatev3.FilterStateValue_ONCE,
	}
}

// connectTerminate takes HBONE connections and hands what is in them to main_internal.
func (w Waypoint) connectTerminate() *listenerv3.Listener {
	const connect = "CONNECT"
	routes := &routev3.RouteConfiguration{
		Name:             "default",
		ValidateClusters: no(),
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "default", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: MainInternal},
					Timeout:          seconds(0),
					UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{
						UpgradeType: connect, ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
					}},
				}},
			}},
		}},
	}
	h := withRoutes(&hcmv3.HttpConnectionManager{
		StatPrefix:        ConnectTerminate,
		CodecType:         hcmv3.HttpConnectionManager_HTTP2,
		ServerName:        serverName,
		UseRemoteAddress:  no(),
		StreamIdleTimeout: seconds(0),
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			AllowConnect:                true,
			MaxConcurrentStreams:        u32(100),
			InitialStreamWindowSize:     u32(4 << 20),
			InitialConnectionWindowSize: u32(16 << 20),
			ConnectionKeepalive:         keepalive(),
		},
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: connect}},
		HttpFilters: []*hcmv3.HttpFilter{
			httpFilter("envoy.filters.http.set_filter_state", &httpstatev3.Config{OnRequestHeaders: []*filterstatev3.FilterStateValue{
				passOn(localAddressKey, "", "%REQ(:AUTHORITY)%"),
				passOn(remoteAddressKey, "", "%DOWNSTREAM_REMOTE_ADDRESS%"),
				passOn(PeerPrincipal, "envoy.string", "%DOWNSTREAM_PEER_URI_SAN%"),
				passOn(LocalPrincipal, "envoy.string", "%DOWNSTREAM_LOCAL_URI_SAN%"),
			}}),
			routerFilter(),
		},
	}, routes)
	h.HttpFilters[0].Name = "connect_authority"
	l := &listenerv3.Listener{
		Name: ConnectTerminate,
		FilterChains: []*listenerv3.FilterChain{{
			Name: "default",
			TransportSocket: transportSocket(tlsSocket, &tlsv3.DownstreamTlsContext{
				CommonTlsContext: meshTLS(w.Mesh), RequireClientCertificate: yes(),
			}),
			Filters: []*listenerv3.Filter{networkFilter(hcmFilter, h)},
		}},
	}
	w.Families.anywhere(l, hbonePort)
	return l
}

func keepalive() *corev3.KeepaliveSettings {
	return &corev3.KeepaliveSettings{Interval: seconds(10), Timeout: seconds(20)}
}

// connectOriginate carries connections to pods by HBONE. The pod's address is that of the connection.
func connectOriginate() *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:              ConnectOriginate,
		UseOriginalDst:    no(),
		ListenerSpecifier: internalListener(),
		ListenerFilters:   []*listenerv3.ListenerFilter{originalDestination()},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{networkFilter(tcpProxyFilter, &tcpv3.TcpProxy{
			StatPrefix:       ConnectOriginate,
			ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: ConnectOriginate},
			TunnelingConfig:  &tcpv3.TcpProxy_TunnelingConfig{Hostname: "%DOWNSTREAM_LOCAL_ADDRESS%"},
		})}}},
	}
}

func internalListener() *listenerv3.Listener_InternalListener {
	return &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}}
}

func originalDestination() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.original_dst",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&originaldstv3.OriginalDst{})},
	}
}

// inspector finds out whether a connection begins with HTTP, on the ports where that is not known. Elsewhere it would hold up
// protocols in which the server speaks first.
func inspector(ports []uint32, all bool) *listenerv3.ListenerFilter {
	f := &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.http_inspector",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&inspectorv3.HttpInspector{})},
	}
	if !all {
		f.FilterDisabled = elsewhere(ports)
	}
	return f
}

// elsewhere is true of connections to none of the ports.
func elsewhere(ports []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var on []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		on = append(on, &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
			DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1},
		}})
	}
	wanted := on[0]
	if len(on) > 1 {
		wanted = &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: on},
		}}
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: wanted}}
}

// mainInternal finds the service, or the workload, that was dialled.
func (w Waypoint) mainInternal() *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:                             MainInternal,
		Metadata:                         w.Mesh.options().listener(),
		ListenerSpecifier:                internalListener(),
		ListenerFilters:                  []*listenerv3.ListenerFilter{originalDestination()},
		ListenerFiltersTimeout:           durationpb.New(w.Mesh.detectionTimeout()),
		ContinueOnListenerFiltersTimeout: true,
	}
	tree := newAddressTree(w.Mesh.acceptsHTTP10())
	var sniffed, named []uint32
	l.FilterChains = slices.Clone(w.Chains)
	for _, s := range w.Services {
		tree.service(s)
		if s.byName() && !slices.Contains(named, s.Port) {
			named = append(named, s.Port)
		}
		if s.Protocol == Unknown && !slices.Contains(sniffed, s.Port) {
			sniffed = append(sniffed, s.Port)
		}
	}
	made := map[string]bool{}
	for _, wl := range w.Workloads {
		if !made[wl.Chain] {
			made[wl.Chain] = true
			l.FilterChains = append(l.FilterChains, w.directChains(wl)...)
		}
		tree.workload(wl)
	}
	if len(l.FilterChains) == 0 {
		// A listener needs a chain. Without a matcher this one would be taken for everything: it leads nowhere.
		l.FilterChains = []*listenerv3.FilterChain{{Name: "blackhole", Filters: []*listenerv3.Filter{tcpProxy(Mesh{}, "blackhole", BlackHole)}}}
		return l
	}
	if len(named) > 0 {
		slices.Sort(named)
		names := &listenerv3.ListenerFilter{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&tlsinspectorv3.TlsInspector{})},
		}
		names.FilterDisabled = elsewhere(named)
		l.ListenerFilters = append(l.ListenerFilters, names)
	}
	if len(sniffed) > 0 || len(w.Workloads) > 0 {
		slices.Sort(sniffed)
		l.ListenerFilters = append(l.ListenerFilters, inspector(sniffed, len(w.Workloads) > 0))
	}
	l.FilterChainMatcher = tree.matcher()
	return l
}

func chainName(s WaypointService, protocol string) string {
	return "inbound-vip|" + number(s.Port) + "||" + s.Host + "-" + protocol
}

// Chains are the filter chains of a service's port, by which name main_internal finds them.
func (s WaypointService) Chains(mesh Mesh) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	var origins []route.Origin
	prefix := "inbound_0.0.0.0_" + number(s.Port) + ";"
	if s.Protocol.HTTP() {
		h := withRDS(requestManager(mesh, prefix, s.HTTPFilters), WaypointRoute(s.Port, s.Host))
		out = append(out, &listenerv3.FilterChain{Name: chainName(s, "http"), Filters: []*listenerv3.Filter{networkFilter(hcmFilter, h)}})
		origins = append(origins, route.Origin{})
	}
	if s.Protocol.TCP() {
		cluster := InboundVIP(s.Port, "tcp", "", s.Host)
		routes := s.TCP
		if len(routes) == 0 {
			routes = []gateway.TCPRoute{{Targets: []gateway.TCPTarget{{Cluster: cluster, Weight: 1}}}}
			s.TCP = routes
		}
		for i, r := range routes {
			out = append(out, &listenerv3.FilterChain{Name: s.tcpChain(i), Filters: append(slices.Clone(s.NetworkFilters), ForwardTCP(mesh, cluster, r))})
			origins = append(origins, r.Origin)
		}
	}
	return mesh.naming(mesh.telling(out), origins)
}

// directChains are those of traffic to a workload's own address. The address goes on with the connection.
func (w Waypoint) directChains(wl WaypointWorkload) []*listenerv3.FilterChain {
	keep := networkFilter("envoy.filters.network.set_filter_state", &networkstatev3.Config{
		OnNewConnection: []*filterstatev3.FilterStateValue{passOn(localAddressKey, "", "%DOWNSTREAM_LOCAL_ADDRESS%")},
	})
	routes := &routev3.RouteConfiguration{Name: Encap, ValidateClusters: no(), VirtualHosts: []*routev3.VirtualHost{{
		Name: "inbound|http|0", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Name:      "default",
			Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Decorator: &routev3.Decorator{Operation: ":0/*"},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: Encap}, Timeout: seconds(0),
				MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: seconds(0), GrpcTimeoutHeaderMax: seconds(0)},
			}},
		}},
	}}}
	h := withRoutes(requestManager(w.Mesh, "inbound_0.0.0.0_0;", wl.HTTPFilters), routes)
	tcp := append([]*listenerv3.Filter{keep}, wl.NetworkFilters...)
	return w.Mesh.telling([]*listenerv3.FilterChain{
		{Name: directTCP + wl.Chain, Filters: append(tcp, tcpProxy(w.Mesh, Encap, Encap))},
		{Name: directHTTP + wl.Chain, Filters: []*listenerv3.Filter{keep, networkFilter(hcmFilter, h)}},
	})
}
